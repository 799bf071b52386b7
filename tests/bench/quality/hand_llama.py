"""A tiny Llama in a Hugging Face folder, written by hand, and its forward pass in numpy.

Both follow the format's own definition (halves of a head turn together), so that a converter and an
engine, which order the rows differently, can be held against something independent.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LAYERS, WIDTH, HEADS, KV_HEADS, FEED_FORWARD, EPS, BASE = 2, 64, 4, 2, 96, 1e-5, 10000.0
HEAD = WIDTH // HEADS
WORDS = ("▁", "t", "h", "e", "c", "a", "s", "▁t", "he", "▁the", "▁c", "at", "▁cat", "▁s", "▁sat")
UNKNOWN, NORMAL, CONTROL, BYTE = 2, 1, 3, 6
PIECES = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
    *((word, -float(rank), NORMAL) for rank, word in enumerate(reversed(WORDS))),
]


def write_folder(folder: Path, seed: int = 1) -> dict[str, Array]:
    """config.json, tokenizer.model and model.safetensors; returns the weights as they were rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: values.astype(np.float16) for name, values in _random_weights(seed).items()}
    _write_safetensors(folder / "model.safetensors", weights)
    (folder / "tokenizer.model").write_bytes(_sentencepiece())
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16",
                "vocab_size": len(PIECES), "hidden_size": WIDTH, "intermediate_size": FEED_FORWARD,
                "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
                "max_position_embeddings": 512, "rms_norm_eps": EPS, "rope_theta": BASE, "hidden_act": "silu",
                "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
            }
        )
    )  # fmt: skip
    return {name: values.astype(np.float32) for name, values in weights.items()}


def logits(weights: dict[str, Array], tokens: list[int]) -> Array:
    """Of every position."""
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        w = {name.removeprefix(block): v for name, v in weights.items() if name.startswith(block)}
        x = x + _attention(w, _norm(x, w["input_layernorm.weight"]))
        h = _norm(x, w["post_attention_layernorm.weight"])
        gate = h @ w["mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    found: Array = _norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T
    return found


def check_same(found: Array, expected: Array) -> None:
    """To 1 % of the largest logit, and the same top token wherever that does not decide it."""
    slack = 0.01 * np.abs(expected).max()
    assert np.abs(found - expected).max() < slack
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * slack
    assert clear.sum() > len(expected) // 2
    assert (found.argmax(axis=1) == expected.argmax(axis=1))[clear].all()


def _attention(w: dict[str, Array], h: Array) -> Array:
    q, k, v = (_heads(h @ w[f"self_attn.{name}_proj.weight"].T) for name in "qkv")
    q, k = _turned(q), _turned(k)
    k, v = np.repeat(k, HEADS // KV_HEADS, axis=0), np.repeat(v, HEADS // KV_HEADS, axis=0)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(HEAD)
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = shares / shares.sum(axis=-1, keepdims=True) @ v
    out: Array = mixed.transpose(1, 0, 2).reshape(len(h), -1) @ w["self_attn.o_proj.weight"].T
    return out


def _heads(x: Array) -> Array:
    return x.reshape(len(x), -1, HEAD).transpose(1, 0, 2)


def _turned(x: Array) -> Array:
    """The first half of each head with the second half, by position."""
    rates = BASE ** (-np.arange(0, HEAD, 2) / HEAD)
    angles = np.outer(np.arange(x.shape[1]), rates)
    a, b = x[..., : HEAD // 2], x[..., HEAD // 2 :]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(np.float32)


def _norm(x: Array, gain: Array) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * gain
    return normed


def _random_weights(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Array:
        values: Array = (rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)).astype(np.float32)
        return values

    def gains() -> Array:
        return (1 + 0.1 * rng.standard_normal(WIDTH)).astype(np.float32)

    found = {"model.embed_tokens.weight": matrix(len(PIECES), WIDTH, 8.0)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}."
        found |= {
            f"{block}input_layernorm.weight": gains(),
            f"{block}self_attn.q_proj.weight": matrix(WIDTH, WIDTH, 2.0),
            f"{block}self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, WIDTH, 2.0),
            f"{block}self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, WIDTH, 2.0),
            f"{block}self_attn.o_proj.weight": matrix(WIDTH, WIDTH, 2.0),
            f"{block}post_attention_layernorm.weight": gains(),
            f"{block}mlp.gate_proj.weight": matrix(FEED_FORWARD, WIDTH),
            f"{block}mlp.up_proj.weight": matrix(FEED_FORWARD, WIDTH),
            f"{block}mlp.down_proj.weight": matrix(WIDTH, FEED_FORWARD),
        }
    return found | {"model.norm.weight": gains(), "lm_head.weight": matrix(len(PIECES), WIDTH, 3.0)}


def _write_safetensors(path: Path, weights: dict[str, NDArray[np.float16]]) -> None:
    """https://github.com/huggingface/safetensors#format"""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in weights.items():
        header[name] = {
            "dtype": "F16", "shape": values.shape, "data_offsets": [offset, offset + values.nbytes]
        }  # fmt: skip
        offset += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in weights.values()))


def _sentencepiece() -> bytes:
    """A ModelProto: the pieces, then as much of trainer and normalizer as changes something."""
    pieces = b"".join(
        _bytes(1, _bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _number(3, kind))
        for text, score, kind in PIECES
    )
    bpe, byte_fallback = _number(3, 2), _number(35, 1)
    trainer = bpe + _number(4, len(PIECES)) + byte_fallback + _number(40, 0) + _number(41, 1) + _number(42, 2)
    normalizer = _bytes(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)
    return pieces + _bytes(2, trainer) + _bytes(3, normalizer)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
