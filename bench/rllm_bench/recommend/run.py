"""Decide for every workload and write the recommendation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rllm_bench.recommend.decide import changes, decide, headroom
from rllm_bench.recommend.options import Floor, Option
from rllm_bench.recommend.plot import cost_against_quality
from rllm_bench.recommend.report import section

Ask = Callable[[float], Sequence[Option]]


def write(ask: Ask, goal: Mapping[str, float], floor: Floor, min_attained: float, out: Path) -> str:
    """``ask`` gives the options for limits multiplied by its argument. Returns the report."""
    out.mkdir(parents=True, exist_ok=True)
    everything = ask(1.0)
    lines = ["# Recommendation", ""]
    for index, workload in enumerate(dict.fromkeys(option.workload for option in everything)):
        options = [option for option in everything if option.workload == workload]

        def ask_workload(factor: float, name: str = workload) -> Sequence[Option]:
            return [option for option in ask(factor) if option.workload == name]

        decision = decide(options, floor, min_attained)
        changed = changes(ask_workload, floor, min_attained, decision)
        following = headroom(decision, options)
        lines += section(workload, decision, following, changed, goal, floor, min_attained)
        if cost_against_quality(decision, out / f"cost-{index}.png"):
            lines += [f"![Cost against quality](cost-{index}.png)", ""]
    lines += _doubts(everything)
    text = "\n".join(lines)
    (out / "recommendation.md").write_text(text, encoding="utf-8")
    return text


def _doubts(options: Sequence[Option]) -> list[str]:
    unjudged = sorted({option.subject for option in options if option.quality is None})
    lines = []
    if unjudged:
        lines.append(
            f"- no quality run holds the model file of {', '.join(unjudged)}: a quality floor refuses them"
        )
    if not options:
        lines.append("- the speed runs hold no finished measurement")
    return ["## Doubts", "", *lines, ""] if lines else []
