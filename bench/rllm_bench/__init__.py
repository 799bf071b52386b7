"""Measure LLM servers over HTTP, and model files directly."""
