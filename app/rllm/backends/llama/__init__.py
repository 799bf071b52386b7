"""The llama.cpp backend, and the only package that imports llama_cpp.

Importing it loads llama.cpp before anything below it can import numpy; see `rllm.backends.llama.lib`.
"""

from rllm.backends.llama import lib

__all__ = ["lib"]
