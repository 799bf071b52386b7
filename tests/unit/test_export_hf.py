"""What is exported is what the GGUF held: every weight, every token, by another name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from rllm.errors import HubError
from rllm.modelhub.export_hf import export_hf, unpermute


def read_safetensors(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], dtype=np.float16).reshape(entry["shape"])
    return found


def permute(values: Any, heads: int) -> Any:
    """As convert_hf_to_gguf.py describes it: the two halves of each head become neighbours."""
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_unpermute_undoes_the_conversion(heads: int) -> None:
    values = np.arange(16 * 3).reshape(16, 3)
    assert (unpermute(permute(values, heads), heads) == values).all()


def test_every_weight_arrives(tiny_model: Path, tmp_path: Path) -> None:
    export_hf(tiny_model, tmp_path / "hf")
    weights = read_safetensors(tmp_path / "hf" / "model.safetensors")
    reader = GGUFReader(tiny_model)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
    assert len(weights) == len(reader.tensors)
    for tensor in reader.tensors:
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            kind, layer = tensor.name.split("attn_")[1][0], tensor.name.split(".")[1]
            ours = permute(weights[f"model.layers.{layer}.self_attn.{kind}_proj.weight"], heads[kind])
            assert np.array_equal(ours, tensor.data.astype(np.float16))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] == ("lm_head.weight" not in weights)


def test_the_tokenizer_keeps_its_tokens(tiny_model: Path, tmp_path: Path) -> None:
    export_hf(tiny_model, tmp_path / "hf")
    tokenizer = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())
    tokens = GGUFReader(tiny_model).fields["tokenizer.ggml.tokens"].contents()
    vocabulary = tokenizer["model"]["vocab"]
    assert [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])] == tokens
    settings = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == tokens[2]
    assert "chat_template" in settings


def test_a_folder_is_not_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    export_hf(tiny_model, tmp_path / "hf")
    with pytest.raises(HubError, match="holds a model already"):
        export_hf(tiny_model, tmp_path / "hf")
    export_hf(tiny_model, tmp_path / "hf", force=True)


@pytest.mark.model
def test_quantized_files_are_refused(q8_model: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="export from the F16"):
        export_hf(q8_model, tmp_path / "hf")
