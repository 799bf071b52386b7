"""CUDA graphs are off where cuBLAS multiplies, and whoever knows better decides."""

from __future__ import annotations

import os

import pytest

from rllm.backends.llama.cuda_graphs import set_up, uses_cublas
from rllm.errors import StartError
from rllm.files.gguf_reader import Tensor

SWITCH = "GGML_CUDA_DISABLE_GRAPHS"


def model(matrix: str, *, embeddings: str = "Q6_K", tied: bool = False) -> list[Tensor]:
    tensors = [
        Tensor("token_embd.weight", embeddings, (4096, 32000), 0),
        Tensor("blk.0.attn_norm.weight", "F32", (4096,), 0),
        Tensor("blk.0.ffn_gate_inp.weight", "F32", (4096, 8), 0),
        Tensor("blk.0.ffn_up.weight", matrix, (4096, 14336), 0),
    ]
    return tensors if tied else [*tensors, Tensor("output.weight", "Q6_K", (4096, 32000), 0)]


@pytest.mark.parametrize("matrix", ["Q4_K", "Q8_0", "IQ4_XS", "MXFP4"])
def test_quantized_matrices_have_kernels_of_their_own(matrix: str) -> None:
    assert not uses_cublas(model(matrix))


@pytest.mark.parametrize("matrix", ["F16", "BF16", "F32", "TQ2_0"])
def test_others_are_multiplied_by_cublas(matrix: str) -> None:
    assert uses_cublas(model(matrix))


def test_embeddings_count_only_where_they_are_the_output_too() -> None:
    assert not uses_cublas(model("Q4_K", embeddings="F16"))
    assert uses_cublas(model("Q4_K", embeddings="F16", tied=True))


@pytest.mark.parametrize(
    ("choice", "matrix", "before", "graphs"),
    [
        ("auto", "Q4_K", None, True),
        ("auto", "F16", None, False),
        ("auto", "Q4_K", "1", False),
        ("on", "F16", "1", True),
        ("off", "Q4_K", None, False),
    ],
)
def test_the_environment_says_what_was_decided(
    choice: str, matrix: str, before: str | None, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop(SWITCH, None)
    if before is not None:
        os.environ[SWITCH] = before
    assert set_up(choice, model(matrix)) is graphs
    assert (SWITCH not in os.environ) is graphs


def test_where_llama_cpp_decides_for_each_step_graphs_stay_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert set_up("auto", model("F16"), by_step=True)
    assert not set_up("off", model("F16"), by_step=True)


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(StartError, match="cuda_graphs is 'maybe'"):
        set_up("maybe", [])


@pytest.mark.parametrize(("choice", "told"), [("auto", "auto"), ("on", "on"), ("off", None)])
def test_a_patched_llama_cpp_is_told_how_far_to_go(
    choice: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("RLLM_CUDA_GRAPHS_CUBLAS", None)
    set_up(choice, model("F16"), by_step=True)
    assert os.environ.get("RLLM_CUDA_GRAPHS_CUBLAS") == told
