"""The first page's two sentences: which variant for which load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rllm_bench.compare import Comparison, compare
from rllm_bench.summary import Result, Summary
from rllm_bench.words import number, plural


@dataclass(frozen=True)
class Winner:
    """Who does best under one load, and by how much over the next."""

    best: Result
    second: Comparison | None
    """The best against the next best; None where it was alone."""

    @property
    def margin(self) -> str:
        if self.second is None:
            return ""
        if self.second.verdict == "no significant difference":
            return f", with no significant difference to {self.second.old}"
        return f", {self.second.ratio:.2f}× {self.second.old}"


@dataclass(frozen=True)
class Answer:
    shape: tuple[int, int]
    light: Winner
    heavy: Winner

    @property
    def sentences(self) -> list[str]:
        prompt, output = self.shape
        return [self._choice(), self._figures(prompt, output)]

    def _choice(self) -> str:
        light, heavy = self.light.best, self.heavy.best
        if light.subject == heavy.subject and light.group != heavy.group:
            return f"Choose {light.subject} from {_load(light)} to {_load(heavy)}."
        if light.group == heavy.group:
            return f"Choose {light.subject} for {_load(light)}."
        return f"Choose {light.subject} for {_load(light)}, and {heavy.subject} for {_load(heavy)}."

    def _figures(self, prompt: int, output: int) -> str:
        one, many = self.light, self.heavy
        same = one.best.subject == many.best.subject
        first = "it" if same else one.best.subject
        text = (
            f"With {prompt}-token prompts and {output}-token answers {first} gives "
            f"{_speed(one.best)} for {_load(one.best)}{one.margin}"
        )
        if one.best.group == many.best.group:
            return f"{text}."
        who = "" if same else f"{many.best.subject} gives "
        return f"{text}, and {who}{_speed(many.best)} for {_load(many.best)}{many.margin}."


def _load(result: Result) -> str:
    if result.load.mode == "closed":
        users = result.load.concurrency or 1
        return "one request at a time" if users == 1 else f"{users} at once"
    return f"{number(result.load.rate)} requests a second"


def _speed(result: Result) -> str:
    return (
        f"{number(result['output_tps'])} tokens/s (first token after {number(result.get('ttft_p50_ms'))} ms)"
    )


def answer(summary: Summary) -> Answer | None:
    """About the middle shape. None where nothing was measured."""
    shapes = sorted({r.shape for r in summary.results if r.values}, key=lambda shape: (sum(shape), shape))
    if not shapes:
        return None
    shape = shapes[len(shapes) // 2]
    loads = loads_of(summary, shape)
    return Answer(shape, winner(summary, loads[0]), winner(summary, loads[-1]))


def loads_of(summary: Summary, shape: tuple[int, int]) -> list[list[Result]]:
    """Results of one shape by load, light to heavy; closed loops where there are any."""
    rows = [r for r in summary.results if r.shape == shape and r.values]
    mode = "closed" if any(r.load.mode == "closed" for r in rows) else "open"
    groups: dict[str, list[Result]] = {}
    for row in rows:
        if row.load.mode == mode:
            groups.setdefault(row.group, []).append(row)
    return list(groups.values())


def winner(summary: Summary, rows: Sequence[Result]) -> Winner:
    ranked = sorted(rows, key=lambda row: -row["output_tps"])
    second = compare(ranked[0], ranked[1], "output_tps", summary.slos) if len(ranked) > 1 else None
    return Winner(ranked[0], second)


def limitation(summary: Summary, warnings: Sequence[str]) -> str:
    """The one doubt that the first page carries: the gravest warning, or what the measurement leaves out."""
    if warnings:
        return warnings[0]
    repeats = max((len(result.cells) for result in summary.results), default=0)
    return (
        f"synthetic prompts on one machine, {plural(repeats, 'repeat')}; other prompts and machines will "
        "differ"
    )
