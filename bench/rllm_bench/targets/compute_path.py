"""By which code a server computes: buffer types, repacking, AMX, flash attention, threads.

rllm says so in its metrics, llama.cpp's servers in their log. What is not said is not there.
"""

from __future__ import annotations

import re

from rllm_bench.load.direct import open_url

ComputePath = dict[str, str]
_INFO = re.compile(r"^rllm_compute_info\{(.*)\} 1", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_WHO = ("model", "instance")
_BUFFER = re.compile(r"load_tensors:\s+(\S+) model buffer size")
_SYSTEM = re.compile(r"n_threads = (\d+) \(n_threads_batch = (\d+)\).*?\|(.*)")
_FLASH_SET = re.compile(r"flash_attn\s+= (enabled|disabled|on|off)")
_FLASH_FOUND = re.compile(r"Flash Attention (enabled|not supported)")
_YES = ("enabled", "on")


def read(base_url: str, log: str) -> ComputePath:
    """Of the server at ``base_url``, of whose output ``log`` is the part since it was started."""
    try:
        with open_url(f"{base_url.rstrip('/')}/metrics", 5.0) as response:
            found = from_metrics(response.read().decode("utf-8", "replace"))
    except (OSError, ValueError):
        found = {}
    return found or from_log(log)


def from_metrics(text: str) -> ComputePath:
    """Of the first instance; those of one model are started alike."""
    if (line := _INFO.search(text)) is None:
        return {}
    return {name: value for name, value in _LABEL.findall(line[1]) if name not in _WHO}


def from_log(text: str) -> ComputePath:
    """llama.cpp's words for the same."""
    found: ComputePath = {}
    if places := _BUFFER.findall(text):
        found["buffer_types"] = ",".join(sorted({place.removesuffix("_Mapped") for place in places}))
    if flash := [*_FLASH_SET.findall(text), *_FLASH_FOUND.findall(text)]:
        found["flash_attn"] = str(flash[-1] in _YES).lower()
    if system := _SYSTEM.search(text):
        found["threads"], found["threads_batch"] = system[1], system[2]
        found["features"] = ",".join(re.findall(r"(\w+) = 1\b", system[3]))
    return found


def in_words(path: ComputePath) -> str:
    return ", ".join(f"{name} {value}" for name, value in path.items() if name != "features")
