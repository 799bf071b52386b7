"""``python -m rllm.backends.llama.speed MODEL OPTIONS``: how long steps take with these options, when asked.

A process for each set of options, because some of them hold for a process and any of them may crash.
OPTIONS is `LlamaOptions` as JSON. Each line of standard input is an `Order`, answered by a line of standard
output with the seconds that it took. The process ends with its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import msgspec

from rllm.backends.llama import lib
from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context
from rllm.backends.llama.model import Model
from rllm.backends.llama.settings import context_options
from rllm.backends.options import LlamaOptions
from rllm.errors import StartError

_ROOM = 32
"""Cells of a sequence beyond its depth: for the tokens that are decoded before it is cut back."""


class Order(msgspec.Struct, frozen=True):
    """``open``: ``count`` sequences of ``size`` tokens each, the first computed and the others copied from
    it. ``decode``: a row of each of ``count`` sequences, ``size`` times. ``prefill``: a prompt of ``size``
    tokens."""

    what: str
    count: int = 1
    size: int = 0


class Answer(msgspec.Struct, frozen=True):
    seconds: float
    error: str = ""


class Rig:
    """One model, and the context of the depth that was opened last."""

    def __init__(self, path: Path, options: LlamaOptions) -> None:
        self._options = options
        self._model = Model(
            path,
            gpu_layers=options.gpu_layers,
            cuda_graphs=options.cuda_graphs,
            repack=options.repack,
        )
        self._context: Context | None = None
        self._depth = 0

    def obey(self, order: Order) -> float:
        """Seconds."""
        began = perf_counter()
        match order.what:
            case "open":
                self._open(order.count, order.size)
            case "decode":
                self._decode(order.count, order.size)
            case "prefill":
                self._prefill(order.size)
        return perf_counter() - began

    def _open(self, count: int, depth: int) -> None:
        self.close_context()
        options = msgspec.structs.replace(
            self._options, slots=count + 1, ctx_per_slot=depth + _ROOM, kv="split", kv_cells=0
        )
        self._context = context = Context(self._model, context_options(options, self._model))
        self._batch = Batch(context.batch_size, context.num_sequences)
        self._depth = depth
        self._fill(0, depth)
        for seq in range(1, count):
            if not context.copy_prefix(0, seq, depth):
                self._fill(seq, depth)

    def _fill(self, seq: int, size: int) -> None:
        context = self._known
        for begin in range(0, size, context.batch_size):
            self._batch.clear()
            tokens = list(range(begin, min(begin + context.batch_size, size)))
            self._batch.add(seq, [token % context.vocab_size for token in tokens], begin, outputs=1)
            self._compute()

    def _decode(self, count: int, steps: int) -> None:
        context = self._known
        for step in range(min(steps, _ROOM)):
            self._batch.clear()
            for seq in range(count):
                token = (step + seq) % context.vocab_size
                self._batch.add(seq, [token], self._depth + step, outputs=1)
            self._compute()
        for seq in range(count):
            context.truncate(seq, self._depth)

    def _prefill(self, size: int) -> None:
        spare = self._known.num_sequences - 1
        self._fill(spare, min(size, self._depth + _ROOM))
        self._known.truncate(spare, 0)

    def _compute(self) -> None:
        if (code := self._known.decode(self._batch)) != 0:
            raise StartError(f"llama_decode returned {code}: {lib.log.last_error()}")
        self._known.synchronize()

    @property
    def _known(self) -> Context:
        if self._context is None:
            raise StartError("nothing is open")
        return self._context

    def close_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def close(self) -> None:
        self.close_context()
        self._model.close()


def main(path: str, options: str) -> int:
    lib.send_log_to(lambda _level, _line: None)
    decode, encode = msgspec.json.Decoder(Order).decode, msgspec.json.encode
    try:
        rig = Rig(Path(path), msgspec.json.decode(options, type=LlamaOptions))
        print(encode(Answer(0.0)).decode(), flush=True)
        for line in sys.stdin:
            print(encode(Answer(rig.obey(decode(line)))).decode(), flush=True)
        rig.close()
    except StartError as error:
        print(encode(Answer(0.0, str(error))).decode(), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
