"""Forecasts of capacity follow from records, and hold where they were not fitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from rllm_bench.capacity.machines import Measured, machines
from rllm_bench.capacity.model import Speeds, forecast, most_users
from rllm_bench.cli import main
from rllm_bench.figures.sources import Catalog
from tests.tinymodel import write_tiny_model

ROOT = Path(__file__).parents[2]
TYPES = [(name, kind) for name, machine in machines().items() for kind in machine.types]
BETWEEN = [("h100", "Q4_K_M", 32), ("h100", "Q8_0", 32), ("h100", "F16", 32), ("h200", "F16", 32)]
"""Loads whose records the forecast does not know."""
FITTED_IN_PART = [("h100", "Q4_K_M", 8), ("h100", "F16", 8), ("h200", "F16", 8)]
"""Only the length of a step was taken from these."""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(ROOT)


def measured(catalog: Catalog, known: Measured, users: int, metric: str) -> float:
    group = f"c{users}-p{known.prompt_tokens}-o{known.output_tokens}"
    return float(catalog.source(known.source).find(f"{known.subject} {group} {metric}")[0])


@pytest.mark.parametrize(("machine", "kind"), TYPES)
def test_shipped_figures_are_those_of_the_records(catalog: Catalog, machine: str, kind: str) -> None:
    known = machines()[machine].types[kind]
    for users, cell in known.cells.items():
        for metric in ("itl_p50_ms", "ttft_p50_ms", "output_tps"):
            found = measured(catalog, known, int(users), metric)
            assert getattr(cell, metric) == pytest.approx(found, rel=1e-4), (users, metric)


@pytest.mark.parametrize(("machine", "kind", "users"), [*BETWEEN, *FITTED_IN_PART, ("epyc-2", "F16", 4)])
def test_a_load_between_is_forecast_within_15_percent(
    catalog: Catalog, machine: str, kind: str, users: int
) -> None:
    known = machines()[machine].types[kind]
    found = forecast(known.speeds(), users, known.prompt_tokens, known.output_tokens)
    assert found.tokens_per_s == pytest.approx(measured(catalog, known, users, "output_tps"), rel=0.15)
    assert found.tpot_ms * 1.15 >= measured(catalog, known, users, "tpot_mean_ms")
    assert found.ttft_ms * 1.15 >= measured(catalog, known, users, "ttft_mean_ms")


SPEEDS = Speeds({1: 5.0, 9: 13.0}, 1.0, 2.0, crowd=4, model_bytes=100, num_params=10)


def test_steps_are_linear_between_the_measured_and_go_on_beyond() -> None:
    assert [SPEEDS.step(users) for users in (1, 5, 9, 10)] == [5.0, 9.0, 13.0, 14.0]


def test_another_model_reads_its_own_file_and_computes_its_own_parameters() -> None:
    half = SPEEDS.scaled(50, 5)
    assert half.step(1) == 2.5
    assert half.step(9) == 2.5 + 4.0
    assert half.prefill(1) == 2.0


def test_more_users_never_make_a_request_faster() -> None:
    found = [forecast(SPEEDS, users, 100, 50) for users in range(1, 40)]
    assert [f.tpot_ms for f in found] == sorted(f.tpot_ms for f in found)


def test_a_target_that_one_user_misses_holds_nobody() -> None:
    assert most_users(SPEEDS, 100, 50, ttft_ms=1.0, tpot_ms=1000.0, limit=10) == 0
    assert most_users(SPEEDS, 100, 50, ttft_ms=1e9, tpot_ms=1e9, limit=10) == 10


@pytest.mark.model
def test_the_command_says_memory_speed_and_the_limit() -> None:
    model = ROOT / "models" / "q4.gguf"
    done = CliRunner().invoke(main, ["capacity", str(model), "--machine", "epyc-2", "--users", "4"])
    assert done.exit_code == 0, done.output
    assert "KV cache: 4 slots x 528 tokens x 23,040 bytes" in done.output
    assert "This machine holds" in done.output


@pytest.mark.model
def test_a_slot_that_is_too_small_is_refused_with_the_numbers() -> None:
    model = str(ROOT / "models" / "q4.gguf")
    done = CliRunner().invoke(main, ["capacity", model, "--machine", "epyc-2", "--ctx-size", "10"])
    assert done.exit_code == 1
    assert "--ctx-size 10: less than --prompt 400 and --output 128" in done.output


def test_a_type_that_was_not_measured_is_refused_by_name(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    done = CliRunner().invoke(main, ["capacity", str(model), "--machine", "h200"])
    assert done.exit_code == 1
    assert "was not measured on h200: F16 were" in done.output
