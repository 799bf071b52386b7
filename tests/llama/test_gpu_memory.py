"""What llama.cpp says about memory is heard, and cards are read as CUDA would see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rllm.backends.llama import lib, opening
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.model import Model
from rllm.backends.options import LlamaOptions
from rllm.errors import StartError
from rllm.observe.gpu import Gpus
from rllm.settings.load import load
from rllm.startup import memory
from rllm.startup.preflight import check

OOM = (
    "ggml_backend_cuda_buffer_type_alloc: allocating 512.00 MiB on device 0: cudaMalloc failed: out of memory"
)
INFO, ERROR = 2, 4


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What goes to the log, kept off the terminal."""
    lines: list[str] = []
    before = lib.log.sink
    lib.send_log_to(lambda level, line: lines.append(line) if level == "warning" else None)
    yield lines
    lib.send_log_to(before)


def test_buffers_are_read_from_the_log_the_last_of_a_kind_counts() -> None:
    log = lib.Log(lambda _level, _line: None)
    for line in (
        b"load_tensors:        CUDA0 model buffer size =  4156.00 MiB\n",
        b"llama_kv_cache:      CUDA0 KV buffer size =  8192.00 MiB\n",
        b"sched_reserve:      CUDA0 compute buffer size =   100.00 MiB\n",
        b"sched_reserve:      CUDA0 compute buffer size =   258.50 MiB\n",
        b"llama_context:  CUDA_Host  output buffer size =    12.00 MiB\n",
    ):
        log(INFO, line, None)
    assert log.buffers == {
        "CUDA0 model": 4156 * 2**20,
        "CUDA0 KV": 8192 * 2**20,
        "CUDA0 compute": 517 * 2**19,
        "CUDA_Host output": 12 * 2**20,
    }
    assert not log.memory_was_short


@pytest.mark.parametrize(
    ("line", "short", "fatal"),
    [
        (OOM, True, False),
        ("CUDA error: out of memory", True, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED", True, True),
        ("CUDA error: an illegal memory access was encountered", False, False),
        ("llama_decode: failed to decode", False, False),
    ],
)
def test_a_shortage_is_told_from_other_faults(line: str, short: bool, fatal: bool) -> None:
    log = lib.Log(lambda _level, _line: None)
    log(ERROR, line.encode() + b"\n", None)
    assert log.memory_was_short is short
    assert lib.is_fatal_shortage("error", line) is fatal


def short_above(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Contexts of more than ``most`` sequences cannot be had; how many each try asked for."""
    tried: list[int] = []

    def scarce(model: Model, options: ContextOptions) -> Context:
        tried.append(options.num_sequences)
        if options.num_sequences > most:
            lib.log(ERROR, OOM.encode() + b"\n", None)
            raise StartError("cannot create the context")
        return Context(model, options)

    monkeypatch.setattr(opening, "Context", scarce)
    return tried


SPLIT = LlamaOptions(slots=8, ctx_per_slot=256, batch_size=64, threads=1, kv="split")


def test_a_context_that_does_not_fit_is_made_smaller(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    tried = short_above(5, monkeypatch)
    backend = LlamaBackend(tiny_model, SPLIT)
    assert tried == [8, 6, 4]
    assert (backend.info.slots, backend.info.num_sequences) == (4, 4)
    assert backend.info.kv_cells == 4 * 256
    assert "out of memory with 8 slots" in said[-2]
    assert not lib.log.memory_was_short
    backend.close()


@pytest.mark.usefixtures("said")
def test_where_not_one_slot_fits_it_does_not_start(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = short_above(0, monkeypatch)
    with pytest.raises(StartError, match="not even one slot fits"):
        LlamaBackend(tiny_model, SPLIT)
    assert tried[-1] == 1


class FakeNvml:
    """Cards of 24 GiB with so much in use."""

    NVMLError = RuntimeError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *used_gib: float) -> None:
        self._used = used_gib

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self._used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"Card {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=int(self._used[handle] * 2**30), total=24 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> Any:
        raise RuntimeError("not supported")

    nvmlDeviceGetPowerUsage = nvmlDeviceGetUtilizationRates

    def nvmlDeviceGetTemperature(self, _handle: int, _kind: int) -> int:
        return 40


@dataclass(frozen=True)
class Visible:
    names: str | None
    found: list[int]


@pytest.mark.parametrize(
    "visible",
    [Visible(None, [0, 1]), Visible("1", [1]), Visible("", []), Visible("GPU-4711", [0, 1])],
    ids=lambda visible: str(visible.names),
)
def test_cards_are_those_that_cuda_shows(visible: Visible, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible.names is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible.names)
    assert [card.index for card in memory.visible_cards(Gpus(FakeNvml(1, 2)))] == visible.found


def test_slots_are_fitted_only_with_a_gpu_that_this_build_uses(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def slots(*, cuda: bool, **settings: Any) -> int:
        monkeypatch.setattr(lib, "is_cuda_build", lambda: cuda)
        models = [check(load({"gguf": (tiny_model,), **settings}).served()[0])]
        (fitted,) = memory.fit_memory(models, Gpus(FakeNvml(1)), overcommit=False)
        return fitted.options.slots

    assert slots(cuda=True) == 64
    assert slots(cuda=False) == 8
    assert slots(cuda=True, gpu_layers=0) == 8
    assert slots(cuda=True, gpu_layers=3) == 8
    assert slots(cuda=True, slots=5) == 5


def test_a_full_card_is_refused_unless_the_operator_insists(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(lib, "is_cuda_build", lambda: True)
    models = [check(load({"gguf": (tiny_model,)}).served()[0])]
    full = Gpus(FakeNvml(23.9))
    with pytest.raises(StartError, match=r"would not fit on GPU 0 \(Card 0"):
        memory.fit_memory(models, full, overcommit=False)
    (kept,) = memory.fit_memory(models, full, overcommit=True)
    assert kept.options.slots == 8


def test_a_gpu_that_is_there_and_not_used_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(FakeNvml(1))
    assert memory.unused_gpu(gpus, "Card 0") is None
    monkeypatch.setattr(lib, "is_cuda_build", lambda: False)
    assert "no CUDA" in (memory.unused_gpu(gpus, "CPU") or "")
    monkeypatch.setattr(lib, "is_cuda_build", lambda: True)
    assert "CUDA_VISIBLE_DEVICES" in (memory.unused_gpu(gpus, "CPU") or "")
    assert memory.unused_gpu(Gpus(FakeNvml()), "CPU") is None
