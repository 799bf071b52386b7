"""What can be found wrong before a worker loads anything: the file, and whether it would fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from rllm.backends.options import CPU_UBATCH, LlamaOptions
from rllm.errors import StartError
from rllm.files.gguf_info import GgufInfo, kv_bytes_per_token, read_gguf, shard_paths
from rllm.settings.model import ModelSettings

_WORKER_BYTES = 200 * 2**20
"""A worker without its model: interpreter, libraries, vocabulary, and some to spare."""
AUTO_STORE_MB, AUTO_STORE_SHARE = 512, 4
"""A prefix store whose size is left open: so many MiB, or 1/AUTO_STORE_SHARE of what is free."""
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Checked:
    """A model file that can be read, and the options that fit it."""

    model: ModelSettings
    options: LlamaOptions
    weight_bytes: int
    info: GgufInfo
    """Of its first part."""

    @property
    def is_on_cpu(self) -> bool:
        """Whatever the build, no layer of it is put on a GPU."""
        return self.model.engine.gpu_layers == 0

    @property
    def kv_bytes(self) -> int:
        options = self.options
        tokens = options.kv_cells or options.slots * options.ctx_per_slot
        return tokens * kv_bytes_per_token(self.info.metadata, options.cache_type_k, options.cache_type_v)

    @property
    def compute_bytes(self) -> int:
        """On the CPU."""
        return self.compute_bytes_of(self.options.ubatch_size or CPU_UBATCH)

    def compute_bytes_of(self, ubatch_size: int) -> int:
        """Roughly: the widest activations of one micro-batch, and a row of logits for every slot."""
        widest = max(self.info.number("feed_forward_length"), self.info.embedding_length)
        return 4 * (ubatch_size * widest * 4 + self.options.slots * self.info.vocab_size)

    @property
    def store_bytes(self) -> int:
        """For prefixes outside the KV cache, where a size was asked for."""
        return self.options.prefix_store_mb * 2**20

    @property
    def host_bytes(self) -> int:
        """All of it, of one instance on the CPU."""
        return self.weight_bytes + self.kv_bytes + self.compute_bytes + self.store_bytes + _WORKER_BYTES


def check(model: ModelSettings) -> Checked:
    """
    Raises:
        StartError: missing, not a GGUF, truncated, or with a part missing.
    """
    parts = [read_gguf(path) for path in shard_paths(model.gguf)]
    return Checked(
        model=model,
        options=model.llama_options(parts[0].num_ctx_train),
        weight_bytes=sum(part.file_bytes for part in parts),
        info=parts[0],
    )


def check_exact(checked: Checked, *, on_gpu: bool) -> None:
    """
    Raises:
        StartError: greedy answers were asked to depend on the request only, and kernels for this do not.
    """
    if not checked.model.engine.exact:
        return
    if on_gpu:
        raise StartError(f"{checked.model.gguf}: exact is for the CPU (--gpu-layers 0)")
    if others := sorted({tensor.type for tensor in checked.info.tensors} - {"Q8_0", "F32"}):
        raise StartError(
            f"{checked.model.gguf}: exact is for Q8_0 files, and this one has {', '.join(others)}"
        )


def prefix_store_mb(model: ModelSettings, free_bytes: int, *, on_gpu: bool) -> int:
    """What ``prefix_store_mb`` means for each instance here. It never makes a start fail by itself.

    Not on a GPU unless asked for: its caches are copied over the bus, and computing a prompt is fast.

    Args:
        free_bytes: what this instance may think of as free, beside all that is needed.
    """
    if model.prefix_store.mb >= 0 or not model.cache.prefix_cache:
        return max(0, model.prefix_store.mb)
    if on_gpu and model.prefix_store.dir is None:
        return 0
    return min(AUTO_STORE_MB, max(0, free_bytes) // AUTO_STORE_SHARE // 2**20)


def check_memory(models: Sequence[Checked], available: int, what: str) -> None:
    """Would all of them fit into what is free now? Weights of one file count once.

    Raises:
        StartError: no; with the numbers and what to change.
    """
    weights = sum({checked.model.gguf: checked.weight_bytes for checked in models}.values())
    kv = sum(checked.kv_bytes for checked in models)
    rest = sum(checked.compute_bytes + checked.store_bytes + _WORKER_BYTES for checked in models)
    if (needed := weights + kv + rest) > available:
        raise StartError(
            f"would not fit in {what}: {gib(needed)} needed (weights {gib(weights)}, KV cache {gib(kv)}, "
            f"other {gib(rest)}), {gib(available)} available; lower --slots or --ctx-size, choose a smaller "
            "--cache-type-k/v or model, or start anyway with --allow-overcommit"
        )


def available_bytes() -> int:
    """What this process may still take: free or reclaimable on the machine, within the container's limit."""
    free: int = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return free
    reclaimable = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return min(free, limit - used + reclaimable)


def gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
