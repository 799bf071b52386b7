"""The trained fixture's parts become a GGUF that computes what the training code defines."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from rllm.backends.llama.logits import LogitModel
from rllm_bench.quality.files import describe
from tests.bench.quality import hand_llama
from tests.unit.test_export_hf import permute

SCRIPT = Path(__file__).parents[3] / "scripts/fixture/export.py"
MERGES = ["t h", "th e", "Ġ the"]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers": "blk",
}  # fmt: skip


def script() -> Any:
    spec = importlib.util.spec_from_file_location("fixture_export", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tokens() -> list[str]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    letters = [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
    words = ["<|endoftext|>", *letters, *(merge.replace(" ", "") for merge in MERGES)]
    return words + [f"[{i}]" for i in range(len(hand_llama.PIECES) - len(words))]


def write_parts(folder: Path, weights: dict[str, hand_llama.Array]) -> None:
    """As train.py does: F16 matrices, F32 norms, neighbouring rows of q and k, no output matrix."""
    parts: list[dict[str, Any]] = [{}, {}]
    for index, (name, values) in enumerate(weights.items()):
        if name == "lm_head.weight":
            continue
        heads = {"q": hand_llama.HEADS, "k": hand_llama.KV_HEADS}.get(name.partition("self_attn.")[2][:1])
        ordered = permute(values, heads) if heads else values
        for long, short in NAMES.items():
            name = name.replace(long, short)
        parts[index % 2][name] = ordered.astype(np.float16 if values.ndim > 1 else np.float32)
    for index, part in enumerate(parts):
        np.savez(folder / f"weights-{index}.npz", **part)
    config = {
        "vocab": len(hand_llama.PIECES), "dim": hand_llama.WIDTH, "layers": hand_llama.LAYERS,
        "ffn": hand_llama.FEED_FORWARD, "heads": hand_llama.HEADS, "kv_heads": hand_llama.KV_HEADS,
        "context": 128, "rope_base": hand_llama.BASE, "eps": hand_llama.EPS,
    }  # fmt: skip
    record = {
        "config": config, "tokens": tokens(), "merges": MERGES, "parts": ["weights-0.npz", "weights-1.npz"],
        "steps": 1, "steps_planned": 2, "device": "none", "text_sha256": "0",
    }  # fmt: skip
    (folder / "fixture.json").write_text(json.dumps(record))


def test_the_exported_file_computes_what_was_trained(tmp_path: Path) -> None:
    weights = hand_llama.write_folder(tmp_path / "hf")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    write_parts(tmp_path, weights)
    path = tmp_path / "fixture.gguf"
    script().export(tmp_path, path)
    asked = np.random.default_rng(4).integers(1, 257, 40).tolist()
    expected = hand_llama.logits(weights, asked)
    with LogitModel(path, num_ctx=64, threads=1) as model:
        found = np.concatenate([rows.logits for rows in model.rows([asked])])
        cut = model.vocabulary.tokenize(" the cat", add_special=True, parse_special=False)
        assert [tokens()[token] for token in cut] == ["Ġthe", "Ġ", "c", "a", "t"]
        assert model.vocabulary.end_tokens == {0}
    hand_llama.check_same(found, expected)
    assert describe(path, "fixture").file_type == "F16"
