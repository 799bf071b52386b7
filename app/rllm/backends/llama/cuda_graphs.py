"""Whether a model may run as CUDA graphs. ggml reads the variables once, when it first computes.

ggml multiplies quantized matrices with kernels of its own, and F16, BF16 and F32 ones with cuBLAS as soon as
a step has more than 16 rows. Inside a replayed graph cuBLAS's kernel for sums in F16 never ended on an H100
(its sm90_xmma_gemm, seen with cuda-gdb; RUNBOOK.md, 'A GPU worker that hangs'). Without graphs a quantized
model decodes a single stream 7 % slower, therefore they stay on where nothing goes through cuBLAS. A
llama.cpp from scripts/build-cuda decides for each step, and then they stay on for every model. It sums in F32
on Hopper, for which cuBLAS has other kernels, and there every step may be a graph.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from rllm.errors import StartError
from rllm.files.gguf_reader import Tensor

CHOICES = ("auto", "on", "off")
_SWITCH = "GGML_CUDA_DISABLE_GRAPHS"
_WITH_CUBLAS = "RLLM_CUDA_GRAPHS_CUBLAS"
"""Read by scripts/cuda/kernels.patch. auto: where cuBLAS was seen to work in graphs; on: everywhere."""
_OWN_KERNELS = frozenset({
    "Q1_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL", "MXFP4", "NVFP4",
})  # fmt: skip
"""What ggml_cuda_should_use_mmq knows; every other type is cuBLAS's."""
_BIG = 2**20
"""Smaller matrices (the router of a mixture of experts, say) do not meet that kernel."""


def uses_cublas(tensors: Iterable[Tensor]) -> bool:
    """Whether a big matrix is multiplied by cuBLAS. Embeddings that are only looked up are not."""
    big = [t for t in tensors if len(t.shape) > 1 and t.num_params >= _BIG]
    looked_up = {"token_embd.weight"} if any(t.name == "output.weight" for t in big) else set()
    return any(t.type not in _OWN_KERNELS and t.name not in looked_up for t in big)


def graphs_allowed() -> bool:
    """In this process, now."""
    return _SWITCH not in os.environ


def set_up(choice: str, tensors: Iterable[Tensor], *, by_step: bool = False) -> bool:
    """Set this process's environment before anything is computed; whether graphs may be used.

    ``auto`` never turns on what the environment has turned off. ``by_step``: llama.cpp itself decides
    which of the steps that need cuBLAS run as a graph.

    Raises:
        StartError: no such choice.
    """
    if choice not in CHOICES:
        raise StartError(f"cuda_graphs is {choice!r}; it must be one of {', '.join(CHOICES)}")
    if choice == "on":
        os.environ.pop(_SWITCH, None)
    elif choice == "off" or (uses_cublas(tensors) and not by_step):
        os.environ[_SWITCH] = "1"
    if choice != "off":
        os.environ.setdefault(_WITH_CUBLAS, choice)
    return graphs_allowed()
