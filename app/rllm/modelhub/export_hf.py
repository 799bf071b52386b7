"""An unquantized Llama GGUF as a Hugging Face folder: config, tokenizer, fp16 safetensors.

For baselines that cannot read GGUF, such as vLLM: they then serve the same weights. Only what can be
written back exactly is exported; anything else is refused by name rather than guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from numpy.typing import NDArray

from rllm.errors import HubError
from rllm.files.gguf_info import read_gguf
from rllm.modelhub.export_tokenizer import tokenizer_files

_PLAIN = {GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_IN_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def export_hf(source: Path, target: Path, *, force: bool = False) -> None:
    """
    Raises:
        HubError: the file is no plain Llama, or the folder holds a model already.
    """
    if (target / "config.json").exists() and not force:
        raise HubError(f"{target} holds a model already; --force replaces it")
    read_gguf(source)  # refuses what the reader below would trip over
    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    _check(source, reader, fields)
    target.mkdir(parents=True, exist_ok=True)
    heads = int(fields["llama.attention.head_count"]), int(fields["llama.attention.head_count_kv"])
    names = {tensor.name: _hf_name(source, tensor.name) for tensor in reader.tensors}
    shapes = {names[t.name]: tuple(int(size) for size in reversed(t.shape)) for t in reader.tensors}
    _write_safetensors(
        target / "model.safetensors", shapes, (_weights(tensor, heads) for tensor in reader.tensors)
    )
    files = {
        "generation_config.json": {
            "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        },
        **tokenizer_files(source, fields),
        "config.json": _config(fields, tied="lm_head.weight" not in shapes),
    }
    for name, content in files.items():
        (target / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _check(source: Path, reader: GGUFReader, fields: Mapping[str, Any]) -> None:
    architecture = fields["general.architecture"]
    if architecture != "llama":
        raise HubError(f"{source}: the architecture is {architecture}; only llama can be exported")
    if any(name.startswith("llama.expert") for name in fields):
        raise HubError(f"{source}: mixtures of experts cannot be exported")
    for tensor in reader.tensors:
        if tensor.tensor_type not in _PLAIN:
            kind = GGMLQuantizationType(tensor.tensor_type).name
            raise HubError(f"{source}: {tensor.name} is {kind}; export from the F16, BF16 or F32 file")
        if tensor.name.startswith("rope_freqs"):
            raise HubError(f"{source}: scaled rotary frequencies cannot be written back to a config.json")


def _hf_name(source: Path, name: str) -> str:
    inner = _IN_LAYER.fullmatch(name)
    if inner is not None and inner[2] in _LAYER:
        return f"model.layers.{inner[1]}.{_LAYER[inner[2]]}.{inner[3]}"
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    raise HubError(f"{source}: no place for the tensor {name} in a Hugging Face Llama")


def _weights(tensor: Any, heads: tuple[int, int]) -> NDArray[np.float16]:
    values = tensor.data
    if tensor.tensor_type == GGMLQuantizationType.BF16:
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    values = values.reshape([int(size) for size in reversed(tensor.shape)])
    if ".attn_q." in tensor.name:
        values = unpermute(values, heads[0])
    elif ".attn_k." in tensor.name:
        values = unpermute(values, heads[1])
    exported: NDArray[np.float16] = np.ascontiguousarray(values, dtype=np.float16)
    if not np.isfinite(exported).all():
        raise HubError(f"{tensor.name} does not fit into fp16")
    return exported


def unpermute(values: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows of each head back in halves: llama.cpp rotates neighbours, Hugging Face the two halves."""
    rows = values.shape[0]
    split = values.reshape(heads, rows // heads // 2, 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


def _write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], weights: Iterator[NDArray[np.float16]]
) -> None:
    """https://github.com/huggingface/safetensors#format: a length, a JSON header, the data in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for values in weights:
            out.write(values.tobytes())
    partial.replace(path)


def _config(fields: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    heads = int(fields["llama.attention.head_count"])
    width = int(fields["llama.embedding_length"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": width,
        "intermediate_size": int(fields["llama.feed_forward_length"]),
        "num_hidden_layers": int(fields["llama.block_count"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(fields["llama.attention.head_count_kv"]),
        "head_dim": int(fields.get("llama.attention.key_length", width // heads)),
        "max_position_embeddings": int(fields["llama.context_length"]),
        "rms_norm_eps": float(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(fields.get("llama.rope.freq_base", 10000.0)),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
    }
