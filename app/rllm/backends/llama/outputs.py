"""What a decode leaves to draw from: logits on the host, or of each row only the highest, found on the card.

A step of 64 sequences with 49,000 tokens each has 12.6 MB of logits: copying them and looking through them
takes a tenth of the step on an H200. A llama.cpp from scripts/build-cuda leaves them on the card where that
is asked for, and tells the highest of each row and the sum of all exponentials, which is what greedy drawing
and top-k, top-p and min-p need. Where that turns out not to be enough the logits are copied after all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rllm.backends.llama import lib
from rllm.backends.llama.context import Context
from rllm.backends.llama.drawing import Top

api = lib.api

MOST_ROWS = 256
"""The most rows that `Card` looks at; of each up to MOST_OF_TOP (rllm.cu)."""

_Floats = ctypes.POINTER(ctypes.c_float)
_Ids = ctypes.POINTER(ctypes.c_int32)


Rows = NDArray[np.float32]


class Finder(Protocol):
    """Finds the highest logits of each row where they are."""

    def expect(self, rows: int, count: int) -> None:
        """For the next decode: ``count`` of each row, if it has exactly so many ``rows`` in one piece."""
        ...

    def found(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]] | None:
        """After the decode: values and ids (rows, count), sums (rows,). None: the logits came as ever."""
        ...

    def fetch(self) -> None:
        """Copy the logits to where llama.cpp has them otherwise."""
        ...


class Card:
    """The functions of scripts/cuda/kernels.patch. For the thread that owns the context."""

    def __init__(self, expect: Any, result: Any, fetch: Any) -> None:
        self._expect, self._result, self.fetch = expect, result, fetch
        self._count = 0

    @classmethod
    def of_library(cls) -> Card | None:
        """None where llama.cpp was built without it."""
        functions = [
            lib.cuda_function(f"rllm_top_{name}", result)
            for name, result in (("expect", None), ("result", ctypes.c_int), ("fetch", None))
        ]
        return None if None in functions else cls(*functions)

    def expect(self, rows: int, count: int) -> None:
        self._count = count
        self._expect(rows, count)

    def found(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]] | None:
        values, ids, sums = _Floats(), _Ids(), _Floats()
        rows = self._result(ctypes.byref(values), ctypes.byref(ids), ctypes.byref(sums))
        if rows == 0:
            return None
        shape = (rows, self._count)
        return (
            np.ctypeslib.as_array(values, shape),
            np.ctypeslib.as_array(ids, shape),
            np.ctypeslib.as_array(sums, (rows,)),
        )


class Outputs:
    """Of the last decode of one context, in the order of its batch."""

    def __init__(self, context: Context, finder: Finder | None) -> None:
        self._context = context
        self._finder = finder
        self._expects = False
        self._address = 0
        self._view = np.empty((0, context.vocab_size), dtype=np.float32)

    def expect(self, needs: Collection[int]) -> None:
        """Before a decode: how many of each row's highest logits will do; 0: that row's will not."""
        if self._finder is None:
            return
        count = max(needs, default=0) if len(needs) <= MOST_ROWS else 0
        if count or self._expects:
            self._finder.expect(len(needs) if count else 0, count)
        self._expects = count > 0

    def tops(self) -> list[Top] | None:
        """Of every row its highest logits, if that was expected and could be done."""
        found = self._finder.found() if self._finder is not None and self._expects else None
        if found is None:
            return None
        values, ids, sums = found
        return list(map(Top, values, ids.tolist(), sums.tolist()))

    def rows(self, count: int) -> NDArray[np.float32]:
        """llama.cpp's logits seen as (outputs, vocabulary) without a copy: at least ``count`` rows, all that
        there are. Its buffer has a row for every sequence from the first decode on, and grows when more are
        asked for; it seldom moves. Asking for it sorts the rows, whatever the micro-batches were."""
        if self._finder is not None and self._expects:
            self._finder.fetch()
        address = ctypes.addressof(api.llama_get_logits(self._context.pointer).contents)
        if address != self._address or count > len(self._view):
            self._address = address
            shape = (max(count, self._context.num_sequences), self._context.vocab_size)
            array_type = ctypes.c_float * (shape[0] * shape[1])
            buffer = memoryview(array_type.from_address(address)).cast("B")
            self._view = np.frombuffer(buffer, dtype=np.float32).reshape(shape)
        return self._view
