"""By which code a server computes is read from what it says, kept with its figures, and compared."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rllm_bench.figures.compare import differences
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.summary import Summary
from rllm_bench.targets import compute_path
from tests.bench.test_pure import SLOS, cell
from tests.cli.server import running

METRICS = """# a gauge
rllm_compute_info{buffer_types="AMX,CPU",flash_attn="true",instance="m-0",model="m",repack="true"} 1.0
"""
LOG = """I system_info: n_threads = 2 (n_threads_batch = 4) / 8 | CPU : AVX2 = 1 | AVX512 = 0 | AMX_INT8 = 1 |
load_tensors:   CPU_Mapped model buffer size =    98.87 MiB
load_tensors:          AMX model buffer size =     7.59 MiB
llama_context: flash_attn            = auto
sched_reserve: Flash Attention enabled
"""


def test_rllm_says_it_in_a_metric() -> None:
    assert compute_path.from_metrics(METRICS) == {
        "buffer_types": "AMX,CPU",
        "flash_attn": "true",
        "repack": "true",
    }
    assert compute_path.from_metrics("llamacpp:n_decode_total 3\n") == {}


def test_llama_cpps_servers_say_it_in_their_log() -> None:
    assert compute_path.from_log(LOG) == {
        "buffer_types": "AMX,CPU",
        "flash_attn": "true",
        "threads": "2",
        "threads_batch": "4",
        "features": "AVX2,AMX_INT8",
    }
    assert compute_path.from_log("nothing of the kind") == {}


def test_a_real_server_is_asked(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, "--slots", "2", "--threads", "1", "--repack", "off") as server:
        found = compute_path.read(f"http://127.0.0.1:{server.port}", "")
    assert (found["repack"], found["threads"], found["buffer_types"]) == ("false", "1", "CPU")
    assert "AVX2" in found["features"] or "NEON" in found["features"]


def summary(**path: str) -> Summary:
    data = cell("rllm/q4", 1.0, 0)
    record = msgspec.structs.replace(data.record, target={"compute_path": path})
    figures = [(CellData(record=record, requests=data.requests), {})]
    return Summary(runs=[], results=[], slos=SLOS, figures=figures)


def test_a_comparison_names_what_differs() -> None:
    old, new = summary(repack="true", threads="2"), summary(repack="false", threads="2", ubatch_size="256")
    assert list(differences(new, old)) == ["rllm/q4 was computed by other code: repack true, now false"]
    assert list(differences(new, new)) == []
    assert list(differences(new, summary())) == []
