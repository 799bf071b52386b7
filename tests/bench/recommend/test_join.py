"""Runs on disk become options: joined by the hash of the model file, repeats averaged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.gate import load_limits
from rllm_bench.quality.results import Floor, QualityRun, Settings, VariantResult
from rllm_bench.quality.store import QualityStore
from rllm_bench.recommend import join
from rllm_bench.records.cells import CellRecord, CellSpec, Load, RequestRecord, WorkloadSpec
from rllm_bench.records.cells import Settings as ServerSettings
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.records.store import Store
from rllm_bench.records.vocabulary import Vocabulary


def model(name: str, file_type: str) -> ModelFile:
    return ModelFile(
        name=name,
        path=name,
        sha256=f"sha-{name}",
        file_type=file_type,
        file_bytes=1,
        num_params=1,
        type_shares={file_type: 1.0},
    )


@pytest.fixture
def quality(tmp_path: Path) -> Path:
    folder = tmp_path / "quality"
    folder.mkdir()
    run = QualityRun(
        created="now",
        settings=Settings(),
        data={},
        environment={},
        reference=VariantResult(model=model("f16", "F16")),
        floor=Floor(),
        variants=[VariantResult(model=model("q8", "Q8_0"))],
    )
    QualityStore(folder).save(run)
    return folder


def spec(repeat: int) -> CellSpec:
    return CellSpec(
        subject="rllm/q8",
        workload=WorkloadSpec(prompt_tokens=8, output_tokens=4),
        load=Load(concurrency=2),
        num_requests=4,
        repeat=repeat,
    )


def requests(first_ms: int) -> list[RequestRecord]:
    """Every 100 ms one request: first token after ``first_ms``, three more 10 ms apart."""
    return [
        RequestRecord(
            index=i,
            scheduled_us=i * 100_000,
            sent_us=i * 100_000,
            first_us=i * 100_000 + first_ms * 1000,
            gaps_us=[10_000] * 3,
            last_us=i * 100_000 + first_ms * 1000 + 30_000,
            closed_us=i * 100_000 + first_ms * 1000 + 30_000,
            status=200,
            max_tokens=4,
            prompt_tokens=8,
            completion_tokens=4,
            usage_source="server",
        )
        for i in range(4)
    ]


@pytest.fixture
def speed(tmp_path: Path) -> Path:
    store = Store(tmp_path / "speed")
    specs = [spec(0), spec(1)]
    run = RunRecord(
        name="speed",
        created_at="now",
        command="",
        preset="",
        settings=ServerSettings(slots=4, ctx_per_slot=64),
        subjects=[Subject(name="rllm/q8", engine="rllm", variant="q8", model_sha256="sha-q8")],
        cells=specs,
        slos={},
        price_per_hour=3.6,
        price_source="",
        environment={},
        vocabulary="",
        seed=0,
    )
    store.create(run, Vocabulary((), ()))
    for one, first_ms in zip(specs, (40, 80), strict=True):
        lines = b"".join(msgspec.json.encode(request) + b"\n" for request in requests(first_ms))
        store.part(one, 0).write_bytes(lines)
        record = CellRecord(
            spec=one, workload_hash="", prompt_format="ids", target={}, started_at="now", generators=[]
        )
        store.save(record, [])
    return store.folder


def test_a_measured_load_becomes_an_option_with_its_quality(quality: Path, speed: Path) -> None:
    found = join.qualities([quality], load_limits())
    (option,) = join.options(join.measured([speed]), found, {"ttft": 50.0}, None)
    assert (option.variant, option.users, option.slots, option.load) == ("q8", 2, 4, "c2")
    assert option.attained == pytest.approx(0.5)
    assert option.p95_ms["ttft"] == pytest.approx(60)
    assert option.price_per_hour == 3.6
    assert option.quality is not None
    assert not option.quality.passes_gate
    assert found["sha-f16"].is_reference


def test_a_looser_goal_is_met_by_more(speed: Path) -> None:
    (option,) = join.options(join.measured([speed]), {}, {"ttft": 100.0}, 7.2)
    assert (option.attained, option.price_per_hour, option.quality) == (1.0, 7.2, None)
