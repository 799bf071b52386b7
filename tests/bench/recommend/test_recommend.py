"""The recommendation follows from the tables, and moves as one would expect."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rllm_bench.recommend.decide import changes, decide, headroom
from rllm_bench.recommend.options import Floor, Option, Quality
from rllm_bench.recommend.run import write

QUALITY = {
    "F16": Quality(0.0, 1.0, 1.0, True, is_reference=True),
    "Q8_0": Quality(0.001, 0.98, 1.001, True),
    "Q4_K_M": Quality(0.05, 0.87, 1.05, True),
    "Q2_K": Quality(0.4, 0.7, 1.5, False),
}
SPEED = {"F16": 100.0, "Q8_0": 160.0, "Q4_K_M": 200.0, "Q2_K": 220.0}
TPOT = {"F16": 30.0, "Q8_0": 20.0, "Q4_K_M": 15.0, "Q2_K": 14.0}


def option(variant: str, users: int, limit: float = 100.0, price: float | None = 2.0) -> Option:
    """Latency grows with the users; throughput saturates."""
    tpot = TPOT[variant] * users / 2
    return Option(
        subject=f"rllm-{variant}",
        engine="rllm",
        variant=variant,
        workload="w",
        load=f"c{users}",
        users=users,
        slots=16,
        output_tps=SPEED[variant] * users / (users + 2),
        goodput_rps=1.0,
        attained=1.0 if tpot <= limit else limit / tpot / 2,
        p95_ms={"tpot": tpot},
        memory_mb=300.0,
        price_per_hour=price,
        quality=QUALITY[variant],
    )


def ask(factor: float) -> Sequence[Option]:
    return [option(variant, users, 100 * factor) for variant in SPEED for users in (1, 4, 8, 16)]


def chosen(floor: Floor, factor: float = 1.0) -> tuple[str, int] | None:
    best = decide(ask(factor), floor, 0.95).best
    return (best.variant, best.users) if best else None


def test_without_a_floor_the_cheapest_variant_wins() -> None:
    assert chosen(Floor()) == ("Q2_K", 8)


def test_the_gate_excludes_what_fails_it() -> None:
    assert chosen(Floor(gate=True)) == ("Q4_K_M", 8)


@pytest.mark.parametrize(("kld", "variant"), [(0.06, "Q4_K_M"), (0.01, "Q8_0"), (0.0001, "F16")])
def test_a_stricter_floor_moves_towards_the_reference(kld: float, variant: str) -> None:
    found = chosen(Floor(max_mean_kld=kld))
    assert found is not None
    assert found[0] == variant


def test_a_looser_goal_allows_more_users() -> None:
    users = [found[1] for factor in (0.25, 1.0, 4.0) if (found := chosen(Floor(gate=True), factor))]
    assert users == sorted(users)
    assert users[0] < users[-1]


def test_an_impossible_goal_has_no_answer_and_says_what_is_nearest() -> None:
    decision = decide(ask(0.01), Floor(gate=True), 0.95)
    assert decision.best is None
    assert {one.option.variant for one in decision.rejected} == set(SPEED)
    assert "fails the gate" in next(o.reason for o in decision.rejected if o.option.variant == "Q2_K")


def test_an_unmeasured_quality_is_refused_by_any_floor() -> None:
    assert Floor(max_mean_kld=1.0).refusal(None) == "its quality was not measured"
    assert Floor(max_mean_kld=1.0).refusal(Quality(same_top=0.9)) == "its mean KLD was not measured"
    assert Floor().refusal(None) is None


def test_without_a_price_the_fastest_wins() -> None:
    options = [option(variant, 4, price=None) for variant in SPEED]
    best = decide(options, Floor(gate=True), 0.95).best
    assert best is not None
    assert best.variant == "Q4_K_M"
    assert best.cost_per_1k is None


def test_cost_counts_only_tokens_within_the_goal() -> None:
    late = option("F16", 16)
    assert late.attained < 1
    assert late.cost_per_1k == pytest.approx(2.0 / 3600 / (late.output_tps * late.attained) * 1000)


def test_headroom_is_the_next_measured_load() -> None:
    following = headroom(decide(ask(1.0), Floor(gate=True), 0.95), ask(1.0))
    assert following is not None
    assert (following.variant, following.users) == ("Q4_K_M", 16)


def test_what_would_change_the_answer_really_does() -> None:
    decision = decide(ask(1.0), Floor(gate=True), 0.95)
    found = changes(ask, Floor(gate=True), 0.95, decision)
    assert found
    assert all(change.decision.answer != decision.answer for change in found)
    assert any(change.question.startswith("quality floor") for change in found)


def test_the_report_gives_answer_reasons_and_doubts(tmp_path: Path) -> None:
    text = write(ask, {"tpot": 100.0}, Floor(gate=True), 0.95, tmp_path)
    assert "**Serve Q4_K_M with rllm, 8 requests at a time" in text
    assert "rllm-Q2_K: it fails the gate" in text
    assert "What would change the answer" in text
    assert (tmp_path / "cost-0.png").exists()
