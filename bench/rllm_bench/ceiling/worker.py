"""The engine alone: prefill and decode over batch sizes, as llama-batched-bench counts them.

A process of its own: llama.cpp is loaded before numpy here, which a CUDA build needs. A Job comes on
standard input, a Measured goes to standard output. No sampling, no HTTP, no scheduling: what remains is
the most that a server over this engine could reach.
"""

from __future__ import annotations

import sys
import time

import msgspec

from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context, ContextOptions, default_threads
from rllm.backends.llama.model import Model
from rllm_bench.ceiling.file import CeilingJob, Measured, Point


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=CeilingJob)
    sys.stdout.buffer.write(msgspec.json.encode(measure(job)))


def measure(job: CeilingJob) -> Measured:
    model = Model(job.model, gpu_layers=job.gpu_layers)
    largest, threads = max(job.batches), job.threads or default_threads()
    options = ContextOptions(
        num_cells=largest * (job.prompt_tokens + job.output_tokens + 1),
        num_sequences=largest,
        batch_size=job.batch_size,
        ubatch_size=job.ubatch_size,
        threads=threads,
        threads_batch=threads,
        kv_unified=job.kv_unified,
    )
    context = Context(model, options)
    try:
        _run(context, job, largest)  # warm-up: pages of the weights, the first graphs
        runs = {size: _run(context, job, size) for size in job.batches}
    finally:
        context.close()
        model.close()
    return Measured(
        prefill_tps=round(max(prefill for prefill, _ in runs.values()), 2),
        decode=[Point(size, round(decode, 2)) for size, (_, decode) in runs.items()],
        threads=threads,
    )


def _run(context: Context, job: CeilingJob, size: int) -> tuple[float, float]:
    """Tokens per second of prefill and of decode with ``size`` sequences."""
    context.clear()
    batch = Batch(context.batch_size, context.num_sequences)
    began = time.perf_counter()
    _prefill(context, batch, size, job.prompt_tokens)
    context.synchronize()
    middle = time.perf_counter()
    for step in range(job.output_tokens):
        batch.clear()
        for seq in range(size):
            batch.add(seq, [_token(seq, step)], job.prompt_tokens + step, outputs=1)
        _decode(context, batch)
        context.synchronize()
    end = time.perf_counter()
    return size * job.prompt_tokens / (middle - began), size * job.output_tokens / (end - middle)


def _prefill(context: Context, batch: Batch, size: int, length: int) -> None:
    """All prompts, in batches as full as they get; logits after the last token of each."""
    batch.clear()
    for seq in range(size):
        done = 0
        while done < length:
            count = min(length - done, context.batch_size - len(batch))
            tokens = [_token(seq, position) for position in range(done, done + count)]
            batch.add(seq, tokens, done, outputs=int(done + count == length))
            done += count
            if len(batch) == context.batch_size:
                _decode(context, batch)
                batch.clear()
    if len(batch):
        _decode(context, batch)


def _decode(context: Context, batch: Batch) -> None:
    code = context.decode(batch)
    if code != 0:
        raise RuntimeError(f"llama_decode returned {code} for {len(batch)} tokens")


def _token(seq: int, position: int) -> int:
    """Any token but a control token; which one does not change the work."""
    return 300 + (seq * 31 + position * 7) % 1000


if __name__ == "__main__":
    main()
