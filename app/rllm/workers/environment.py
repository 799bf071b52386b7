"""What a worker sees of the environment: what its libraries read, and no secret of the server.

A list of what is allowed: whoever adds a secret to the server's environment (a key, a registry's token, the
headers of a trace collector) need not think of the workers.
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = """
    HOME LANG LANGUAGE LOGNAME PATH SHELL TEMP TERM TMP TMPDIR TZ TZDIR USER VIRTUAL_ENV
"""
_PREFIXES = """
    LC_ LD_ DYLD_ PYTHON MALLOC_ GLIBC_ ASAN_ UBSAN_ TSAN_
    OMP_ GOMP_ KMP_ LIBOMP OPENBLAS_ BLIS_ MKL_ NUMEXPR_ VECLIB_
    GGML_ LLAMA_
    CUDA_ CUBLAS_ NVIDIA_ NCCL_ HIP_ HSA_ ROCR_ ROCM_ AMD_ GPU_ SYCL_ ONEAPI_ ZES_ ZE_ VK_ MTL_ METAL_
"""
"""The loader and the interpreter; compilers' and mathematical libraries' runtimes; llama.cpp; GPUs."""


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    names, prefixes = set(_NAMES.split()), tuple(_PREFIXES.split())
    return {name: value for name, value in environ.items() if name in names or name.startswith(prefixes)}
