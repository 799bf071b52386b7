"""The documented way from a Hugging Face folder to a GGUF keeps the model: llama.cpp's own converter.

The converter needs torch, transformers and sentencepiece, which rllm does not. Name both to run this:

    RLLM_CONVERT=vendor/llama.cpp/convert_hf_to_gguf.py RLLM_CONVERT_PYTHON=~/convert/bin/python
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rllm.backends.llama.logits import LogitModel
from rllm.modelhub.quantizing import QuantizeJob, quantize
from rllm_bench.quality.files import describe
from tests.bench.quality import hand_llama

SCRIPT, PYTHON = (os.environ.get(name) for name in ("RLLM_CONVERT", "RLLM_CONVERT_PYTHON"))
needs_converter = pytest.mark.skipif(
    not (SCRIPT and PYTHON), reason="RLLM_CONVERT and RLLM_CONVERT_PYTHON name no converter"
)
TOKENS = [1, *np.random.default_rng(3).integers(3, len(hand_llama.PIECES), 30).tolist()]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, hand_llama.Array]]:
    folder = tmp_path_factory.mktemp("convert")
    weights = hand_llama.write_folder(folder / "hf")
    target = folder / "model.gguf"
    command = [str(PYTHON), str(SCRIPT), str(folder / "hf"), "--outtype", "auto", "--outfile", str(target)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return target, weights


@pytest.mark.slow
@needs_converter
def test_the_converted_file_computes_what_the_folder_says(
    converted: tuple[Path, dict[str, hand_llama.Array]],
) -> None:
    path, weights = converted
    expected = hand_llama.logits(weights, TOKENS)
    with LogitModel(path, num_ctx=64, threads=1) as model:
        found = np.concatenate([rows.logits for rows in model.rows([TOKENS])])
    hand_llama.check_same(found, expected)


@pytest.mark.slow
@needs_converter
def test_the_tokenizer_arrives(converted: tuple[Path, dict[str, hand_llama.Array]]) -> None:
    """Pieces by score, bytes where there is no piece, the begin token in front."""
    names = [piece for piece, _, _ in hand_llama.PIECES]
    with LogitModel(converted[0], num_ctx=64, threads=1) as model:
        found = model.vocabulary.tokenize("the cat sat!", add_special=True, parse_special=False)
        assert [names[token] for token in found] == ["<s>", "▁the", "▁cat", "▁sat", "<0x21>"]
        assert model.vocabulary.detokenize(found[1:], special=False).strip() == "the cat sat!"


@pytest.mark.slow
@needs_converter
def test_it_keeps_its_precision_and_can_be_quantized(
    converted: tuple[Path, dict[str, hand_llama.Array]],
) -> None:
    path, _ = converted
    assert describe(path, "converted").file_type == "F16"
    quantize(QuantizeJob(path, path.with_name("q8.gguf"), "Q8_0", threads=1))
    assert describe(path.with_name("q8.gguf"), "q8").type_shares["Q8_0"] > 0.9
