"""The everyday part of the chaos suite: real rllm-serve processes, a tiny random model, small numbers.

Everything, with the real model: ``scripts/chaos``.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.chaos import crash, fuzz, rolling, rude
from tests.chaos.nginx import find
from tests.chaos.result import Result


def _broken(result: Result) -> list[str]:
    return [f"{check.promise}: {check.measured}" for check in result.checks if not check.kept]


async def test_a_killed_worker_costs_nobody_an_answer_without_a_name(tiny_model: Path) -> None:
    plan = crash.CrashPlan(
        tiny_model, rounds=1, early=4, late=4, plain=2, max_tokens=300, slots=8, threads=1, patience_s=60
    )
    assert not _broken(await crash.run(plan))


async def test_a_stopped_worker_is_found_and_replaced(tiny_model: Path) -> None:
    plan = crash.CrashPlan(
        tiny_model,
        signal.SIGSTOP,
        rounds=1,
        early=4,
        late=4,
        plain=2,
        max_tokens=300,
        slots=8,
        threads=1,
        patience_s=60,
    )
    assert not _broken(await crash.run(plan))


async def test_a_rolling_restart_fails_no_request(tiny_model: Path) -> None:
    plan = rolling.RollingPlan(tiny_model, clients=3, restarts=1, threads=1, slots=4, pause_s=0.5)
    assert not _broken(await rolling.run(plan))


@pytest.mark.slow
async def test_a_rolling_restart_behind_nginx_fails_no_request(tiny_model: Path) -> None:
    binary = find(None)
    if binary is None:
        pytest.skip("nginx is not installed")
    plan = rolling.RollingPlan(tiny_model, clients=3, restarts=2, slots=4, pause_s=0.5)
    assert not _broken(await rolling.run_nginx(plan, binary))


@pytest.mark.slow
async def test_nothing_stays_behind_when_clients_leave(tiny_model: Path) -> None:
    plan = rude.RudePlan(tiny_model, leavers=40, readers=2, slow_timeout_s=1, threads=1, slots=8)
    assert not _broken(await rude.run(plan))


async def test_fuzzed_requests_meet_no_500_and_no_silence(tiny_model: Path) -> None:
    assert not _broken(await fuzz.run(fuzz.FuzzPlan(tiny_model, requests=300, threads=1)))
