"""The one place that loads llama.cpp: import order, backend initialisation, log lines, devices.

With a CUDA build, llama.cpp must be loaded before other C++ extensions: after numpy, reading a
vocabulary crashes inside std::regex (seen with Python 3.12; loading it first, or preloading libggml-cuda,
avoids it).
The package's ``__init__`` imports this module first, and the check below refuses the wrong order.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rllm.printable import printable

LogSink = Callable[[str, str], None]
"""Receives a level ("debug", "info", "warning" or "error") and one line."""

_LEVELS = {1: "debug", 2: "info", 3: "warning", 4: "error"}  # as ggml.h has them; the package is off by one
_CONTINUED = 5
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size = +([\d.]+) MiB")
_FLASH_ATTN = re.compile(r": Flash Attention (enabled|not supported)")
_NO_MEMORY = re.compile(r"out of memory|failed to allocate|ALLOC_FAILED")
_MISLEADING = (
    "possible training context overflow",  # counts the cells of all sequences of a unified cache as one
)


def library_folder() -> Path:
    """Where the libraries are that this process has loaded."""
    if folder := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return Path(folder)
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("llama-cpp-python is not installed")
    return Path(spec.submodule_search_locations[0]) / "lib"


def is_cuda_build() -> bool:
    return any(library_folder().glob("*ggml-cuda*"))


def chooses_graphs_by_step() -> bool:
    """Whether llama.cpp was built with scripts/cuda/kernels.patch: it knows where cuBLAS may be in graphs."""
    return b"RLLM_KERNELS" in api.llama_print_system_info()


def _check_import_order() -> None:
    preloaded = "libggml-cuda" in os.environ.get("LD_PRELOAD", "")
    if "numpy" in sys.modules and not preloaded and is_cuda_build():
        raise ImportError("import rllm.backends.llama before numpy: this build of llama.cpp uses CUDA")


_check_import_order()

# Typed as Any: the package's annotations describe ctypes values more loosely than mypy can use.
api: Any = importlib.import_module("llama_cpp.llama_cpp")


class Log:
    """Collects llama.cpp's pieces of lines, hands whole lines to a sink, remembers the last errors.

    Called by native threads (ctypes takes the GIL for it); must never raise.
    """

    def __init__(self, sink: LogSink) -> None:
        self.sink = sink
        self.errors: deque[str] = deque(maxlen=20)
        self.buffers: dict[str, int] = {}
        """Bytes by place and purpose ("CUDA0 KV"), as llama.cpp last allocated them."""
        self.memory_was_short = False
        """Since somebody last set it to False."""
        self.has_flash_attn = True
        """What became of the last choice that was left to llama.cpp."""
        self._level = "info"
        self._pending = ""

    def __call__(self, level: int, text: bytes | None, _user_data: object) -> None:
        if level != _CONTINUED:
            self._level = _LEVELS.get(level, "debug")
        self._pending += (text or b"").decode("utf-8", "replace")
        *lines, self._pending = self._pending.split("\n")
        for line in lines:
            if not line.strip() or any(phrase in line for phrase in _MISLEADING):
                continue
            if found := _BUFFER.search(line):
                self.buffers[f"{found[1]} {found[2]}"] = round(float(found[3]) * 2**20)
            if found := _FLASH_ATTN.search(line):
                self.has_flash_attn = found[1] == "enabled"
            if self._level == "error":
                self.errors.append(line)
                self.memory_was_short |= _NO_MEMORY.search(line) is not None
            self.sink(self._level, line)

    def last_error(self) -> str:
        """The most telling of the recent errors: llama.cpp follows the cause with general remarks."""
        for line in reversed(self.errors):
            if cause := re.search(r"error loading \w+: (.*)", line):
                return cause[1]
        return self.errors[-1].split(": ", 1)[-1] if self.errors else "llama.cpp gave no reason"


def features() -> tuple[str, ...]:
    """What the libraries were compiled to use on this processor and its GPUs, e.g. AVX2 or AMX_INT8."""
    text = api.llama_print_system_info().decode("utf-8", "replace")
    return tuple(re.findall(r"(\w+) = 1\b", text))


def is_fatal_shortage(level: str, line: str) -> bool:
    """Whether ggml says that a GPU has no memory and is about to abort the process for it."""
    return level == "error" and " error: " in line and _NO_MEMORY.search(line) is not None


def warnings_to_stderr(level: str, line: str) -> None:
    if level in ("warning", "error"):
        print(printable(f"llama.cpp {level}: {line}"), file=sys.stderr, flush=True)


log = Log(warnings_to_stderr)
_callback = api.llama_log_callback(log)  # kept here: the library holds a bare pointer to it
api.llama_log_set(_callback, None)
atexit.register(api.llama_log_set, api.llama_log_callback(0), None)

# The package opens /dev/null twice and never closes it, which warns at exit.
_utils: Any = importlib.import_module("llama_cpp._utils")
atexit.register(_utils.outnull_file.close)
atexit.register(_utils.errnull_file.close)

_state = {"ready": False, "gpus_hidden": False}


def send_log_to(sink: LogSink) -> None:
    """Hand every further line of llama.cpp's log to ``sink``; it must be cheap and must not raise."""
    log.sink = sink


def initialise(*, hide_gpus: bool = False) -> None:
    """Ready the library once per process.

    With ``hide_gpus``, when it is the first call, no GPU is touched now or later in this process: a
    process that only needs a vocabulary should not hold a CUDA context.
    """
    if _state["ready"]:
        return
    _state.update(ready=True, gpus_hidden=hide_gpus)
    with _no_visible_gpus() if hide_gpus else _nothing():
        api.llama_backend_init()
        _ggml("ggml_backend_dev_count", ctypes.c_size_t)()


def gpus_hidden() -> bool:
    return _state["gpus_hidden"]


def device_names(*, gpus: bool) -> list[str]:
    """The devices llama.cpp sees: GPUs, or everything else (the CPU)."""
    initialise()
    get, kind = _ggml("ggml_backend_dev_get", ctypes.c_void_p), _ggml("ggml_backend_dev_type", ctypes.c_int)
    describe = _ggml("ggml_backend_dev_description", ctypes.c_char_p)
    devices = [
        ctypes.c_void_p(get(ctypes.c_size_t(i)))
        for i in range(_ggml("ggml_backend_dev_count", ctypes.c_size_t)())
    ]
    gpu_kinds = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU, _IGPU
    return [
        describe(device).decode("utf-8", "replace")
        for device in devices
        if (kind(device) in gpu_kinds) == gpus
    ]


def cuda_function(name: str, result: Any) -> Any | None:
    """A function that scripts/cuda/kernels.patch adds; None where this build has none of that name."""
    for path in sorted(library_folder().glob("libggml-cuda.*")):
        function = getattr(ctypes.CDLL(str(path)), name, None)
        if function is not None:
            function.restype = result
            return function
    return None


def _ggml(name: str, result: Any) -> Any:
    """A function of ggml itself, which the package does not wrap."""
    for stem in ("libggml", "libggml-base"):
        for path in sorted(library_folder().glob(f"{stem}.*")):
            function = getattr(ctypes.CDLL(str(path)), name, None)
            if function is not None:
                function.restype = result
                return function
    raise AttributeError(name)


@contextmanager
def _no_visible_gpus() -> Iterator[None]:
    """CUDA reads this variable once, when it initialises; children must not inherit it."""
    before, sink = os.environ.get("CUDA_VISIBLE_DEVICES"), log.sink
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    log.sink = lambda _level, _line: None  # CUDA calls it an error that no device is there
    try:
        yield
    finally:
        log.sink = sink
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


@contextmanager
def _nothing() -> Iterator[None]:
    yield
