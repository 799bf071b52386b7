"""``python -m rllm.backends.llama.quantize ORDER``: one call of ``llama_model_quantize``.

A program rather than a function because the call cannot be interrupted, writes to standard error and
may abort the process. ORDER is a JSON object (see ``Order``). Standard output carries one JSON object a
line: ``{"tensor": i}`` when tensor i begins, ``{"num_bytes": n}`` once the size of the result is known.
Standard error carries llama.cpp's warnings, errors and unfinished lines. The exit code is 0 on success.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn, TypedDict

import llama_cpp  # isort: skip  # before numpy, which gguf imports

from gguf import GGUFReader

_TENSOR = re.compile(r"^\[ *(\d+)/ *\d+\]")
_SIZE = re.compile(r"quant size *= *([\d.]+) MiB")


class Order(TypedDict):
    source: str
    target: str
    ftype: int
    threads: int
    allow_requantize: bool
    dry_run: bool
    imatrix: str | None
    """A file of llama-imatrix's layout."""
    tensor_types: list[tuple[str, int]]
    """Regular expressions of tensor names with the ggml type that they get; the first that fits counts."""


class Reporter:
    """Turns llama.cpp's log, which arrives in pieces of lines, into events."""

    def __init__(self) -> None:
        self._line = ""
        self._reported = ""

    def feed(self, text: str) -> None:
        self._line += text
        self._report(self._line)
        *complete, self._line = self._line.split("\n")
        for line in complete:
            self._report(line)
            if not _TENSOR.match(line) and not line.startswith("llama_model_loader: - "):
                print(line, file=sys.stderr)
        if complete:
            self._reported = ""

    def _report(self, line: str) -> None:
        if found := _TENSOR.match(line):
            if found[1] != self._reported:
                self._reported = found[1]
                _say(tensor=int(found[1]))
        elif found := _SIZE.search(line):
            _say(num_bytes=int(float(found[1]) * 2**20))

    def close(self) -> None:
        """An error may follow on the line of the tensor it is about."""
        if self._line:
            print(self._line, file=sys.stderr)
        sys.stderr.flush()


def _say(**event: int) -> None:
    print(json.dumps(event), flush=True)


def _end_with_parent() -> NoReturn:
    """Standard input closes when whoever started us is gone, however it went."""
    while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(1)


def run(order: Order) -> int:
    reporter = Reporter()

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def log(_level: int, text: bytes, _data: object) -> None:
        reporter.feed(text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = order["ftype"]
    params.nthread = order["threads"]
    params.allow_requantize = order["allow_requantize"]
    params.dry_run = order["dry_run"]
    kept = [_importance(params, order["imatrix"]), _tensor_types(params, order["tensor_types"])]
    code: int = llama_cpp.llama_model_quantize(order["source"].encode(), order["target"].encode(), params)
    reporter.close()
    del kept
    return code


def _importance(params: Any, path: str | None) -> object:
    """Fills ``params``; what it returns must live as long as they do."""
    if path is None:
        return None
    reader = GGUFReader(path)
    sums = {t.name.removesuffix(".in_sum2"): t.data for t in reader.tensors if t.name.endswith(".in_sum2")}
    counts = {t.name.removesuffix(".counts"): t.data for t in reader.tensors if t.name.endswith(".counts")}
    means = {
        name: (sums[name] / counts[name]).astype("<f4").ravel() for name in sums if (counts[name] > 0).all()
    }
    entries = (llama_cpp.llama_model_imatrix_data * (len(means) + 1))()  # the last one stays empty: the end
    pointer = ctypes.POINTER(ctypes.c_float)
    for entry, (name, values) in zip(entries, means.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(pointer)
    params.imatrix = entries
    overrides = _imatrix_metadata(path, len(means))
    params.kv_overrides = overrides
    return entries, means, overrides


def _imatrix_metadata(path: str, num_entries: int) -> Any:
    """As llama-quantize writes it into the result."""
    overrides: Any = (llama_cpp.llama_model_kv_override * 3)()
    overrides[0].tag, overrides[0].key = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, b"quantize.imatrix.file"
    overrides[0].value.val_str = Path(path).name.encode()[:127]
    overrides[1].tag, overrides[1].key = (
        llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT,
        b"quantize.imatrix.entries_count",
    )
    overrides[1].value.val_i64 = num_entries
    return overrides


def _tensor_types(params: Any, types: list[tuple[str, int]]) -> object:
    if not types:
        return None
    overrides = (llama_cpp.llama_model_tensor_override * (len(types) + 1))()
    for override, (pattern, number) in zip(overrides, types, strict=False):
        override.pattern, override.type = pattern.encode(), number
    params.tt_overrides = overrides
    return overrides


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler waits for the C call to return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return run(json.loads(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
