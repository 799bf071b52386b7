"""Tiny models with random weights that llama.cpp loads in milliseconds: the real code path without a model.

Their text means nothing, but it is deterministic, depends on every token before it, and goes through the
same kernels, caches and samplers as a real model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "h e", "th e", "i n", "a n", "Ġ the")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

LAYERS, WIDTH, HEADS, KV_HEADS, FEED_FORWARD = 2, 64, 4, 2, 96
HEAD = WIDTH // HEADS


def write_tiny_model(
    path: Path,
    *,
    seed: int = 1,
    architecture: str = "llama",
    num_ctx: int = 8192,
    output_gain: float = 3.0,
    chat_template: str = CHAT_TEMPLATE,
    tensors_per_part: int = 0,
) -> Path:
    """About 400 kB. Another ``architecture`` makes a file that llama.cpp must refuse; an ``output_gain`` of
    0 or NaN one whose logits are all equal or no numbers. ``tensors_per_part``: split into several files;
    the first of them is returned."""
    rng = np.random.default_rng(seed)
    tokens = [*CONTROL, *_byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]
    writer = GGUFWriter(path, architecture, split_max_tensors=tensors_per_part)
    writer.add_name("tiny random llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(num_ctx)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    _add_vocabulary(writer, tokens, chat_template)
    _add_weights(writer, rng, len(tokens), output=output_gain)
    _write(writer)
    return min(path.parent.glob(f"{path.stem}-00001-of-*.gguf")) if tensors_per_part else path


def write_tiny_mamba(path: Path, *, seed: int = 1) -> Path:
    """A recurrent model: its memory cannot forget the tail of a sequence, nor copy a part of one."""
    rng = np.random.default_rng(seed)
    tokens = [*CONTROL, *_byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]
    inner, state, kernel, rank = 2 * WIDTH, 8, 4, 4
    writer = GGUFWriter(path, "mamba")
    writer.add_block_count(LAYERS)
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    _add_vocabulary(writer, tokens)

    def add(name: str, *shape: int) -> None:
        values: Any = rng.standard_normal(shape) / np.sqrt(shape[-1])
        writer.add_tensor(name, values.astype(np.float32))

    add("token_embd.weight", len(tokens), WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", np.ones(WIDTH, dtype=np.float32))
        add(f"{block}.ssm_in.weight", 2 * inner, WIDTH)
        add(f"{block}.ssm_conv1d.weight", inner, kernel)
        add(f"{block}.ssm_conv1d.bias", inner)
        add(f"{block}.ssm_x.weight", rank + 2 * state, inner)
        add(f"{block}.ssm_dt.weight", inner, rank)
        add(f"{block}.ssm_dt.bias", inner)
        writer.add_tensor(f"{block}.ssm_a", -np.ones((inner, state), dtype=np.float32))
        add(f"{block}.ssm_d", inner)
        add(f"{block}.ssm_out.weight", WIDTH, inner)
    _write(writer)
    return path


def write_tiny_gemma(path: Path, *, window: int = 32, seed: int = 1) -> Path:
    """Five layers with a sliding window and one without."""
    rng = np.random.default_rng(seed)
    tokens = [*CONTROL, *_byte_characters(), *(merge.replace(" ", "") for merge in MERGES)]
    writer = GGUFWriter(path, "gemma3")
    writer.add_block_count(6)
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_sliding_window(window)
    writer.add_vocab_size(len(tokens))
    _add_vocabulary(writer, tokens)
    _add_weights(writer, rng, len(tokens), layers=6, embedding=0.1)  # Gemma multiplies embeddings
    for layer in range(6):
        for name, size in (
            ("attn_q_norm", HEAD),
            ("attn_k_norm", HEAD),
            ("post_attention_norm", WIDTH),
            ("post_ffw_norm", WIDTH),
        ):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(size, dtype=np.float32))
    _write(writer)
    return path


def _add_vocabulary(writer: GGUFWriter, tokens: list[str], chat_template: str = CHAT_TEMPLATE) -> None:
    kinds = [TokenType.CONTROL] * len(CONTROL) + [TokenType.NORMAL] * (len(tokens) - len(CONTROL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat_template)


def _add_weights(
    writer: GGUFWriter,
    rng: np.random.Generator,
    vocab_size: int,
    *,
    layers: int = LAYERS,
    embedding: float = 8.0,
    output: float = 3.0,
) -> None:
    def matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        values: Any = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd", vocab_size, WIDTH, gain=embedding)
    ones("output_norm")
    matrix("output", vocab_size, WIDTH, gain=output)
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm")
        ones(f"{block}.ffn_norm")
        matrix(f"{block}.attn_q", WIDTH, WIDTH, gain=2.0)
        matrix(f"{block}.attn_k", KV_HEADS * HEAD, WIDTH, gain=2.0)
        matrix(f"{block}.attn_v", KV_HEADS * HEAD, WIDTH, gain=2.0)
        matrix(f"{block}.attn_output", WIDTH, WIDTH, gain=2.0)
        matrix(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD)


def _write(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
