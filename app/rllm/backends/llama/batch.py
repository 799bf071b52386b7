"""The arrays of a ``llama_batch``, allocated once and filled with whole chunks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from rllm.backends.llama import lib

api = lib.api


class Batch:
    """``struct`` points into numpy arrays owned by this object; only ``n_tokens`` changes in it."""

    def __init__(self, capacity: int, num_sequences: int) -> None:
        self._capacity = capacity
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._num_ids = np.ones(capacity, dtype=np.int32)
        self._id_pointers = np.zeros(capacity, dtype=np.uintp)
        self._outputs = np.zeros(capacity, dtype=np.int8)
        self._ids = np.arange(num_sequences, dtype=np.int32)
        self._id_addresses = (self._ids.ctypes.data + 4 * np.arange(num_sequences)).tolist()
        self._count = np.arange(capacity, dtype=np.int32)
        self.struct = api.llama_batch()
        self.struct.token = _pointer(self._tokens, api.llama_batch, "token")
        self.struct.pos = _pointer(self._positions, api.llama_batch, "pos")
        self.struct.n_seq_id = _pointer(self._num_ids, api.llama_batch, "n_seq_id")
        self.struct.seq_id = _pointer(self._id_pointers, api.llama_batch, "seq_id")
        self.struct.logits = _pointer(self._outputs, api.llama_batch, "logits")
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def clear(self) -> None:
        self._length = 0
        self.struct.n_tokens = 0

    def add(self, seq: int, tokens: Sequence[int], start: int, *, outputs: int) -> int:
        """Append a chunk, with logits after each of its last ``outputs`` tokens. The last token's index.

        Raises:
            ValueError: it is empty or does not fit.
        """
        begin, end = self._length, self._length + len(tokens)
        if not begin < end <= self._capacity:
            raise ValueError(f"{end} tokens in a batch of {self._capacity}")
        if end - begin == 1:  # every decode row
            self._tokens[begin] = tokens[0]
            self._positions[begin] = start
            self._id_pointers[begin] = self._id_addresses[seq]
            self._outputs[begin] = outputs
        else:
            self._tokens[begin:end] = tokens
            np.add(self._count[: end - begin], start, out=self._positions[begin:end])
            self._id_pointers[begin:end] = self._id_addresses[seq]
            self._outputs[begin : end - outputs] = 0
            self._outputs[end - outputs : end] = 1
        self._length = self.struct.n_tokens = end
        return end - 1

    def add_with_outputs(
        self, seq: int, tokens: Sequence[int], start: int, outputs: Sequence[bool] | bool
    ) -> None:
        """Append a chunk that wants logits at the marked positions, or at all of them."""
        begin = self._length
        self.add(seq, tokens, start, outputs=0)
        self._outputs[begin : self._length] = outputs


def _pointer(array: np.ndarray[tuple[int], np.dtype[np.generic]], struct: type, field: str) -> object:
    kind = next(kind for name, kind in struct._fields_ if name == field)  # type: ignore[attr-defined]
    return ctypes.cast(array.ctypes.data, kind)
