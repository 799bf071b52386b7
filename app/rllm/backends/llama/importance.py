"""``python -m rllm.backends.llama.importance ORDER``: the importance matrix of a model over a text.

For every matrix of the blocks, the sum of the squares of each column of what it is multiplied with: a
quantizer then spends its precision where activations are large. llama.cpp's scheduler shows each
multiplication to a callback before and after it is computed; we read its second operand after it.
The result is the GGUF that llama-imatrix writes, and llama-quantize reads ours.

A program, as quantizing is: it is stopped by ending it. ORDER is a JSON object (see ``Order``). Standard
output carries ``{"chunk": i, "chunks": n}`` lines. Mixtures of experts are refused.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any, TypedDict

from rllm.backends.llama import lib  # isort: skip  # before numpy

import numpy as np
from gguf import GGUFWriter

from rllm.backends.llama.model import Model
from rllm.backends.llama.vocabulary import LlamaVocabulary
from rllm.errors import RllmError, StartError

api = lib.api

_MIN_ROWS = 16  # as llama-imatrix: smaller multiplications are not the model's work on the text
_F32 = 0


class Order(TypedDict):
    model: str
    text: str
    target: str
    num_ctx: int
    num_chunks: int
    threads: int


class _Tensor(ctypes.Structure):
    """``struct ggml_tensor`` at this commit of ggml, as far as it is read."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Collector:
    """Sums of squares per matrix. ``callback`` runs inside llama_decode; its errors wait in ``error``."""

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        self.counts: dict[str, int] = {}
        self.error: Exception | None = None
        base = ctypes.CDLL(str(lib.library_folder() / "libggml-base.so"))
        self._name_of = base.ggml_op_name
        self._name_of.restype = ctypes.c_char_p
        self._copy = base.ggml_backend_tensor_get
        self._copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self._copy.restype = None
        self.callback = api.ggml_backend_sched_eval_callback(self._see)

    def _see(self, pointer: int, ask: bool, _data: object) -> bool:
        try:
            tensor = ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
            if ask:
                return self._wants(tensor)
            self._add(tensor)
            return True
        except Exception as exc:
            self.error = exc
            return False

    def _wants(self, tensor: _Tensor) -> bool:
        kind = self._name_of(tensor.op)
        if kind == b"MUL_MAT_ID":
            raise StartError("a mixture of experts: make its importance matrix with llama-imatrix")
        if kind != b"MUL_MAT":
            return False
        weight, seen = tensor.src[0].contents, tensor.src[1].contents
        return _plain_name(weight).startswith("blk.") and seen.type == _F32 and seen.ne[1] >= _MIN_ROWS

    def _add(self, tensor: _Tensor) -> None:
        """What the matrix was multiplied with, wherever it lies; its rows are contiguous."""
        seen, name = tensor.src[1].contents, _plain_name(tensor.src[0].contents)
        columns, rows = seen.ne[0], seen.ne[1] * seen.ne[2] * seen.ne[3]
        if (seen.nb[0], seen.nb[1]) != (4, 4 * columns) or (
            rows > seen.ne[1] and seen.nb[2] != seen.nb[1] * seen.ne[1]
        ):
            raise StartError(f"{name}: its input is not contiguous")
        values = np.empty((rows, columns), np.float32)
        self._copy(ctypes.addressof(seen), values.ctypes.data, 0, values.nbytes)
        squares = np.einsum("ij,ij->j", values, values, dtype=np.float64)
        self.sums[name] = self.sums.get(name, 0.0) + squares
        self.counts[name] = self.counts.get(name, 0) + rows


def _plain_name(tensor: _Tensor) -> str:
    """The scheduler calls a copy for another device ``CUDA0#blk.0.attn_k.weight#0``."""
    name: str = tensor.name.decode()
    return name.split("#")[1] if "#" in name else name


def collect(order: Order) -> Collector:
    """Read the text in windows, as llama-imatrix does: all tokens count, each window begins afresh."""
    model = Model(order["model"])
    vocabulary = LlamaVocabulary(model)
    text = Path(order["text"]).read_text(encoding="utf-8")
    tokens = vocabulary.tokenize(text, add_special=True, parse_special=False)
    size, begin = order["num_ctx"], vocabulary.tokenize("", add_special=True, parse_special=False)
    chunks = min(order["num_chunks"], len(tokens) // size)
    if chunks < 1:
        raise StartError(f"{order['text']}: {len(tokens)} tokens do not fill a window of {size}")
    collector = Collector()
    context = _context(model, size, order["threads"], collector)
    batch = api.llama_batch_init(size, 0, 1)
    for chunk in range(chunks):
        window = tokens[chunk * size : (chunk + 1) * size]
        _fill(batch, begin[:1] + window[1:] if begin else window)
        api.llama_memory_clear(api.llama_get_memory(context), True)
        code = api.llama_decode(context, batch)
        if collector.error is not None:
            raise collector.error
        if code != 0:
            raise StartError(f"{order['model']}: llama_decode returned {code}")
        print(json.dumps({"chunk": chunk + 1, "chunks": chunks}), flush=True)
    api.llama_batch_free(batch)
    api.llama_free(context)
    model.close()
    return collector


def _context(model: Model, size: int, threads: int, collector: Collector) -> object:
    params = api.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = size
    params.cb_eval = collector.callback
    if threads:
        params.n_threads = params.n_threads_batch = threads
    context: object = api.llama_init_from_model(model.pointer, params)
    if not context:
        raise StartError(f"{model.path}: {lib.log.last_error()}")
    return context


def _fill(batch: Any, tokens: list[int]) -> None:
    """Every position asks for logits: else the last block is computed for the last token only."""
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, i
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        batch.logits[i] = 1


def write(order: Order, collector: Collector) -> None:
    """In the layout of llama-imatrix: sums of squares and counts, to be divided by the reader."""
    if not collector.sums:
        raise StartError(f"{order['model']}: no multiplication was seen")
    writer = GGUFWriter(order["target"], "", use_temp_file=False)
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [Path(order["text"]).name])
    writer.add_uint32("imatrix.chunk_count", max(collector.counts.values()) // order["num_ctx"])
    writer.add_uint32("imatrix.chunk_size", order["num_ctx"])
    for name in sorted(collector.sums):
        writer.add_tensor(f"{name}.in_sum2", collector.sums[name].astype(np.float32)[None, :])
        writer.add_tensor(f"{name}.counts", np.array([[collector.counts[name]]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> int:
    order: Order = json.loads(sys.argv[1])
    try:
        write(order, collect(order))
    except RllmError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
