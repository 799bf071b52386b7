"""``python -m rllm.backends.llama.proof``: does this build of llama.cpp compute on this machine?

For each tensor type of the files that rllm makes, a small random model is decoded in a process of its own,
which may crash: prompts of 32 rows and single rows, with all threads, for about a second each. Standard
output has a line for each type that fails; the exit code is 0 where none does. Standard error has the rates.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.model import Model
from rllm.backends.llama.self_test import fault_of

import numpy as np  # isort: skip  # after llama.cpp: see `lib`
from gguf import GGUFWriter  # isort: skip

TYPES = {"F16": 1, "Q8_0": 8, "Q6_K": 14, "Q5_0": 6, "Q4_K": 12, "Q4_1": 3}
"""Name to ``ggml_type``: what is in the files that scripts/setup makes."""
ROWS = (32, 1)
SECONDS = 1.0
_CHILD_LIMIT_S = 60.0
_LAYERS, _WIDTH, _HEADS, _FEED_FORWARD, _VOCAB = 2, 256, 4, 512, 512
"""Rows divide by 256, as K-quants need; columns by 32, as AMX tiles do."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="rllm-proof-") as folder:
        source = _write_model(Path(folder) / "F16.gguf")
        failed = list(_failures(source))
    for line in failed:
        print(line)
    return 1 if failed else 0


def _failures(source: Path) -> Iterator[str]:
    for name, number in TYPES.items():
        model = source.with_name(f"{name}.gguf")
        if name != "F16":
            order = {
                "source": str(source),
                "target": str(model),
                "ftype": 7,
                "threads": 0,
                "allow_requantize": False,
                "dry_run": False,
                "imatrix": None,
                "tensor_types": [[".*", number]],
            }
            if fault := _run("rllm.backends.llama.quantize", json.dumps(order)):
                yield f"{name} cannot be made: {fault}"
                continue
        for rows in ROWS:
            if fault := _run("rllm.backends.llama.proof", str(model), str(rows)):
                yield f"{name}, {rows} rows: {fault}"


def _run(module: str, *arguments: str) -> str | None:
    """What was wrong with it."""
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        # Its standard input stays open: `quantize` ends with it.
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True) as child,
    ):
        try:
            code = child.wait(_CHILD_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return f"no end after {_CHILD_LIMIT_S:.0f} s"
        log.seek(0)
        last = (log.read().strip().splitlines() or ["no message"])[-1]
    if code == 0:
        print(last, file=sys.stderr)
        return None
    return signal.Signals(-code).name if code < 0 else last


def decode(path: Path, rows: int) -> int:
    """The child's work."""
    with closing(Model(path)) as model:
        options = ContextOptions(num_cells=256, num_sequences=1, batch_size=64, ubatch_size=64)
        with closing(Context(model, options)) as context:
            batch = Batch(context.batch_size, 1)
            began, count = perf_counter(), 0
            while (seconds := perf_counter() - began) < SECONDS:
                if context.length(0) + rows > context.num_cells:
                    context.clear()
                start = context.length(0)
                batch.clear()
                batch.add(
                    0, [token % model.vocab_size for token in range(start, start + rows)], start, outputs=1
                )
                code = context.decode(batch)
                logits = np.ctypeslib.as_array(_logits(context), (1, model.vocab_size))
                if code != 0 or (fault := fault_of(logits)):
                    print(f"llama_decode returned {code}" if code else fault, file=sys.stderr)
                    return 1
                count += rows
    print(f"{path.stem}, {rows} rows: {count / seconds:,.0f} tokens a second")
    return 0


def _logits(context: Context) -> Any:
    from rllm.backends.llama.lib import api

    return api.llama_get_logits(context.pointer)


def _write_model(path: Path) -> Path:
    """A Llama with random weights in F16, and a vocabulary that nobody reads."""
    rng = np.random.default_rng(1)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(_LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(_VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{token}" for token in range(_VOCAB)])
    writer.add_token_merges(["t 0"])
    names = ["token_embd", "output"]
    shapes = {"token_embd": (_VOCAB, _WIDTH), "output": (_VOCAB, _WIDTH)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.attn_{part}": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{part}": (_FEED_FORWARD, _WIDTH) for part in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down"] = (_WIDTH, _FEED_FORWARD)
        names += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for name, shape in shapes.items():
        weights: Any = rng.standard_normal(shape) / np.sqrt(shape[1])
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))
    for norm in ("output_norm", *(name for name in names if name.endswith("_norm"))):
        writer.add_tensor(f"{norm}.weight", np.ones(_WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


if __name__ == "__main__":
    sys.exit(decode(Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 1 else main())
