"""Which sampling holds where a request says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rllm.engine.types import SamplingDefaults
from rllm.errors import StartError
from rllm.startup.sampling import sampling_defaults


def write_sidecar(folder: Path, content: object) -> Path:
    (folder / "m.gguf.json").write_text(json.dumps(content))
    return folder / "m.gguf"


def test_without_a_sidecar_it_is_openais(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path / "m.gguf", {}) == SamplingDefaults()


def test_the_operator_wins_over_the_sidecar(tmp_path: Path) -> None:
    gguf = write_sidecar(tmp_path, {"sampling": {"temperature": 0.2, "top_p": 0.9}})
    found = sampling_defaults(gguf, {"temperature": None, "top_p": 0.5, "top_k": 7})
    assert found == SamplingDefaults(temperature=0.2, top_p=0.5, top_k=7)


@pytest.mark.parametrize("content", [[], {}, {"sampling": None}, {"sampling": 3}, "text"])
def test_a_sidecar_that_is_not_ours_recommends_nothing(tmp_path: Path, content: object) -> None:
    assert sampling_defaults(write_sidecar(tmp_path, content), {}) == SamplingDefaults()


def test_a_recommendation_without_sense_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"m\.gguf\.json: sampling"):
        sampling_defaults(write_sidecar(tmp_path, {"sampling": {"top_k": 0.5}}), {})
