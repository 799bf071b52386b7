"""Serve quantized GGUF models over the OpenAI API with continuous batching."""

__version__ = "0.1.0"
