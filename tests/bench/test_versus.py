"""Two servers pair by pair, and studies out of TOML plans."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from rllm_bench import scenarios
from rllm_bench.cli import main
from rllm_bench.figures import stats
from rllm_bench.figures.paired import paired
from rllm_bench.figures.summary import judged, summarize
from rllm_bench.records.runs import Goal, Subject
from rllm_bench.records.store import Store
from rllm_bench.records.vocabulary import plain_words
from rllm_bench.report.study import goals
from rllm_bench.run import plan
from rllm_bench.run.generator import WARMUP_SEED_OFFSET
from rllm_bench.run.plan import MatrixConfig, PlanError
from rllm_bench.targets.catalog import Places, UnknownTarget, resolve
from rllm_bench.targets.configured import Token
from tests.bench.conftest import Delay
from tests.bench.test_pure import SLOS, over_repeats

SMALL = (
    *("--concurrency", "2", "--prompt-tokens", "8", "--output-tokens", "24"),
    *("--requests-per-user", "1", "--min-requests", "2"),
)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.slow
def test_the_slower_server_has_a_ratio_below_one(delay: Callable[..., Delay], tmp_path: Path) -> None:
    quick, slow = delay(ttft_s=0.05, tpot_s=0.01), delay(ttft_s=0.5, tpot_s=0.05)
    names = "unique,interference"
    more = ("--scenarios", names, "--pairs", "3", "--name", "run", "--out", str(tmp_path))
    result = invoke("versus", quick.url, slow.url, *more, *SMALL)
    assert result.exit_code == 0, result.output
    store = Store(tmp_path / "run")
    ours, theirs = (subject.name for subject in store.run().subjects)
    summary = summarize([store])
    for result_ in summary.results:
        if result_.subject != ours:
            continue
        other = summary.find(theirs, result_.group, result_.part)
        assert other is not None
        for name in scenarios.find(result_.workload.kind).headline:
            found = paired(result_, other, name, SLOS)
            assert found is not None, name
            assert found.ratio > 1, name
            assert found.pairs == 3
            assert found.verdict == "too few pairs"
    page = (tmp_path / "run" / "report.md").read_text()
    assert "too few pairs for a verdict" in page
    assert "streams' ITL p99 meanwhile (ms)" in page


def test_both_sides_are_asked_the_same_and_nothing_twice(delay: Callable[..., Delay], tmp_path: Path) -> None:
    one, other = delay(ttft_s=0.0, tpot_s=0.0), delay(ttft_s=0.0, tpot_s=0.0)
    more = ("--scenarios", "unique,risk-review", "--pairs", "2", "--name", "run", "--out", str(tmp_path))
    result = invoke("versus", one.url, other.url, *more, *SMALL)
    assert result.exit_code == 0, result.output
    asked: dict[str, list[str]] = {}
    for cell in judged(Store(tmp_path / "run")):
        asked.setdefault(cell.record.spec.subject, []).append(cell.record.workload_hash)
    first, second = map(sorted, asked.values())
    assert first == second
    assert len(set(first)) == len(first) == 4


@pytest.mark.parametrize(("pairs", "verdict"), [(5, "too few pairs"), (6, "better")])
def test_a_ratio_is_that_of_the_pairs_and_above_one_is_better(pairs: int, verdict: str) -> None:
    new, old = over_repeats("new", 1.0, count=pairs), over_repeats("old", 1.3, seed=1, count=pairs)
    found = paired(new, old, "ttft_p50_ms", SLOS)
    assert found is not None
    assert found.ratio == pytest.approx(1.3, rel=0.05)
    assert found.verdict == verdict


def test_equal_servers_are_called_different_one_time_in_twenty_at_most() -> None:
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(400):
        bounds = stats.median_interval(np.exp(rng.normal(0, 0.05, size=7)).tolist())
        assert bounds is not None
        wrong += not bounds.holds(1.0)
    assert wrong <= 20


PLAN = """
question = "Which is quicker?"
targets = ["vllm:f16", "llama-server:f16 --cache-ram 0"]
prompt_tokens = [8]
output_tokens = [4]
concurrency = [2]
requests_per_user = 1
min_requests = 2
repeats = 2

[[part]]
name = "first"

[[part]]
name = "second"
workload = "multi-turn"
turns = 2
body = { temperature = 0.8 }

[[goal]]
what = "tokens/s"
figure = "output_tps"
load = "c2-p8-o4"
part = "first"
ours = "vllm/*"
theirs = "llama-server/*"
at_least = 0.01
"""


def study(tmp_path: Path, one: Delay, other: Delay, *more: str) -> Result:
    (tmp_path / "plan.toml").write_text(PLAN)
    at = ("--at", f"vllm/f16={one.url}", "--at", f"llama-server/f16+cache-ram=0={other.url}")
    return invoke("study", str(tmp_path / "plan.toml"), *at, "--out", str(tmp_path), *more)


def test_a_plan_goes_on_where_its_budget_ended(delay: Callable[..., Delay], tmp_path: Path) -> None:
    one, other = delay(ttft_s=0.01, tpot_s=0.001), delay(ttft_s=0.01, tpot_s=0.001)
    spent = study(tmp_path, one, other, "--budget-s", "0")
    assert spent.exit_code == 0, spent.output
    assert "left out: first.vllm/f16-c2-p8-o4-r0" in spent.output
    assert Store(tmp_path / "plan").cells() == []
    done = study(tmp_path, one, other, "--budget-s", "600")
    assert done.exit_code == 0, done.output
    cells = Store(tmp_path / "plan").cells()
    assert len(cells) == 8
    parts = {cell.record.spec.part: cell.record.target["body"]["temperature"] for cell in cells}
    assert parts == {"first": 0, "second": 0.8}
    began = [cell.record.started_at for cell in cells]
    again = study(tmp_path, one, other)
    assert again.exit_code == 0, again.output
    assert [cell.record.started_at for cell in Store(tmp_path / "plan").cells()] == began
    page = (tmp_path / "plan" / "report.md").read_text()
    assert page.startswith("# Which is quicker?")
    assert "| reached |" in page


def test_parts_are_measured_one_by_one_into_the_same_run(delay: Callable[..., Delay], tmp_path: Path) -> None:
    one, other = delay(ttft_s=0.0, tpot_s=0.0), delay(ttft_s=0.0, tpot_s=0.0)
    for done, part in enumerate(("second", "first"), 1):
        result = study(tmp_path, one, other, "--part", part)
        assert result.exit_code == 0, result.output
        assert len(Store(tmp_path / "plan").cells()) == 4 * done


def test_a_part_that_is_not_in_the_plan_is_named(delay: Callable[..., Delay], tmp_path: Path) -> None:
    one = delay(ttft_s=0.0, tpot_s=0.0)
    result = study(tmp_path, one, one, "--part", "third")
    assert result.exit_code == 1
    assert "has no part third; there is first, second" in result.output


@pytest.mark.parametrize("path", sorted(Path("bench/plans").glob("*.toml")), ids=lambda path: path.stem)
def test_every_plan_in_the_checkout_is_one(path: Path) -> None:
    found = plan.study(path, {})
    names = [
        [Subject(name=target, engine="rllm", variant=target) for target in part.targets]
        for part in found.parts
    ]
    planned = plan.cells(found, names)
    assert len({spec.id for spec in planned}) == len(planned)
    for part in found.parts:
        resolve(part.targets, [], Places())
        plan.settings(part)
    groups = {(spec.part, spec.group) for spec in planned}
    for goal in found.goals:
        assert goal.load in {group for _, group in groups}, goal.what


def test_no_two_cells_ask_the_same() -> None:
    """A server that is kept for the whole run would find its answers in its cache."""
    found = plan.study(Path("bench/plans/gpu.toml"), {})
    names = [[Subject(name=target, engine="", variant="") for target in part.targets] for part in found.parts]
    planned = plan.cells(found, names)
    asked = {(spec.workload.seed, spec.part, spec.group, spec.repeat) for spec in planned}
    assert len({seed for seed, *_ in asked}) == len(asked)


def test_loads_on_one_server_share_no_prompt() -> None:
    """One seed, one --url: a prefix cache would answer what an earlier load, or its warm-up, has asked."""
    loads = MatrixConfig(targets=["url"], concurrency=[1, 2, 8], rates=[1.0, 2.0], repeats=3)
    found = plan.matrix(msgspec.structs.replace(loads, prompt_tokens=[16, 32], output_tokens=[8, 16]))
    planned = plan.cells(found, [[Subject(name="url", engine="url", variant="")]])
    words = plain_words()
    asked = [
        prompt.text
        for spec in planned
        for seed in (spec.workload.seed, spec.workload.seed + WARMUP_SEED_OFFSET)
        for unit in scenarios.workload(msgspec.structs.replace(spec.workload, seed=seed), words).units(5)
        for prompt in unit
    ]
    beginnings = {" ".join(text.split()[:8]) for text in asked}
    assert len(beginnings) == len(asked) == 5 * 2 * len(planned)


def test_pairs_take_turns_in_an_order_that_changes() -> None:
    found = plan.versus(["unique"], {"targets": ["a", "b"], "concurrency": [1, 4]}, 8)
    subjects = [[Subject(name=name, engine="", variant="") for name in "ab"]]
    planned = plan.cells(found, subjects)
    pairs = [(planned[i].subject, planned[i + 1].subject) for i in range(0, len(planned), 2)]
    assert set(pairs) == {("a", "b"), ("b", "a")}
    assert all(planned[i].workload == planned[i + 1].workload for i in range(0, len(planned), 2))
    assert [spec.repeat for spec in planned] == sorted(spec.repeat for spec in planned)


def test_a_target_is_written_as_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/x y")
    token = Token.parse('LD_PRELOAD="$WHERE/a.so" rllm:q4 --kv=split --slots 8')
    assert token.env == {"LD_PRELOAD": "/x y/a.so"}
    assert token.options == ("--kv=split", "--slots", "8")
    assert (token.engine, token.variant, token.label) == ("rllm", "q4", "+kv=split+slots=8")
    with pytest.raises(ValueError, match="names no engine"):
        Token.parse("A=1")


def test_a_cache_too_small_for_all_is_said_to_every_server() -> None:
    settings = plan.settings(
        plan.complete(
            MatrixConfig(
                workload="oversubscribed", concurrency=[16], prompt_tokens=[100], output_tokens=[284]
            )
        )
    )
    assert settings.kv_cells == 4096
    for target in resolve(["rllm:q4", "llama-server:q4"], [], Places()):
        command = target.launch(settings, 1, ()).command
        assert command is not None
        assert "4096" in command


def test_two_targets_of_one_name_are_refused() -> None:
    """Their records would be mixed."""
    with pytest.raises(UnknownTarget, match="two targets are named rllm/q4"):
        resolve(["rllm:q4", "OMP_NUM_THREADS=1 rllm:q4"], [], Places())


def test_a_key_that_no_plan_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[[part]]\nname = "x"\nconcurency = [1]\n')
    with pytest.raises(PlanError, match="concurency"):
        plan.study(tmp_path / "plan.toml", {})


def test_a_goal_is_held_against_the_best_of_each_side() -> None:
    rows = [over_repeats("rllm/f16", 1.0), over_repeats("rllm/q4", 2.0), over_repeats("vllm/f16", 1.5)]
    goal = Goal(
        what="TTFT", figure="ttft_p50_ms", load=rows[0].group, ours="rllm/*", theirs="vllm/*", at_most=0.8
    )
    assert "| reached |" in goals([goal], rows)
    assert "not measured" in goals([goal], rows[:2])


def test_a_scenario_that_does_not_exist_is_refused() -> None:
    began = time.monotonic()
    result = invoke("versus", "http://127.0.0.1:9", "http://127.0.0.1:9", "--scenarios", "nothing")
    assert result.exit_code == 1
    assert "no scenario 'nothing'; there are" in result.output
    assert time.monotonic() - began < 30


def test_a_comparison_with_nobody_is_refused(delay: Callable[..., Delay], tmp_path: Path) -> None:
    result = invoke("versus", delay().url, "rllm:q4", "--models", str(tmp_path), "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "nothing to compare url/127.0.0.1_" in result.output
    assert "q4.gguf is not there" in result.output
