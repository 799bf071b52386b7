"""The first page's sentences: which variant for which load, and where there is nothing to choose between."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rllm_bench.figures.compare import Comparison, compare
from rllm_bench.figures.metrics import KEPT
from rllm_bench.figures.names import figure
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.figures.words import limits_of, listed, number, plural

FEWEST_REPEATS = 3


@dataclass(frozen=True)
class Standing:
    """The results under one load. ``best``: the most tokens/s, and whoever cannot be told apart from it."""

    best: tuple[Result, ...]
    rows: tuple[Result, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(row.subject for row in self.best)


@dataclass(frozen=True)
class Choice:
    """What to take under one load, and how the others stand to it."""

    result: Result
    same: tuple[str, ...]
    """Subjects that cannot be told apart from it."""
    behind: Comparison | None
    """It against the best of those that can; None where there is none."""
    smallest: bool
    """Its file is smaller than those of all the `same`."""

    @property
    def margin(self) -> str:
        names = listed(self.same) if len(self.same) <= 3 else f"{len(self.same)} others"
        text = f", no different from {names}" if self.same else ""
        return text + (f", {self.behind.ratio:.2f}× {self.behind.old}" if self.behind else "")


@dataclass(frozen=True)
class Answer:
    shape: tuple[int, int]
    choices: tuple[Choice, ...]
    """One for each load, from light to heavy, under which somebody keeps the first goal."""
    goal: str
    """Up to which load the choice keeps the first goal."""
    nobody: str = ""
    """Said instead of a choice, where nobody keeps the goal under any load."""
    too_little: str = ""
    """Why nothing can be chosen yet: what follows is only what was seen."""

    @property
    def light(self) -> Choice:
        return self.choices[0]

    @property
    def heavy(self) -> Choice:
        return self.choices[-1]

    @property
    def always_same(self) -> list[str]:
        """What cannot be told apart from the choice under any load."""
        return [name for name in self.light.same if all(name in one.same for one in self.choices)]

    @property
    def sentences(self) -> list[str]:
        if not self.choices:
            return [self.too_little or self.nobody, *([self.nobody] if self.too_little else [])]
        seen = [self._figures(), *([self.goal] if self.goal else [])]
        return [self.too_little, *seen] if self.too_little else [self._choice(), *seen]

    def _choice(self) -> str:
        light, heavy = self.light.result, self.heavy.result
        if light.subject != heavy.subject:
            return f"Choose {light.subject} for {_load(light)}, and {heavy.subject} for {_load(heavy)}."
        loads = f"for {_load(light)}"
        if light.group != heavy.group:
            throughout = all(one.result.subject == light.subject for one in self.choices)
            loads = f"from {_load(light)} to {_load(heavy)}" if throughout else f"{loads} and {_load(heavy)}"
        equal = self.always_same
        if equal and not any(one.behind for one in self.choices):
            every = listed(sorted([light.subject, *equal]))
            small = f": take the smallest file, {light.subject}" if self.light.smallest else ""
            return f"No difference in speed between {every} {loads}{small}."
        also = f"; {listed(equal)} {'are' if equal[1:] else 'is'} no different in speed" if equal else ""
        return f"Choose {light.subject} {loads}{also}."

    def _figures(self) -> str:
        prompt, output = self.shape
        one, many = self.light.result, self.heavy.result
        same = one.subject == many.subject
        who = "it" if same and not self.too_little else one.subject
        text = (
            f"With {prompt}-token prompts and {output}-token answers {who} gives {_speed(one)} "
            f"for {_load(one)}{self.light.margin}"
        )
        if one.group == many.group:
            return f"{text}."
        who = "" if same else f"{many.subject} gives "
        return f"{text}, and {who}{_speed(many)} for {_load(many)}{self.heavy.margin}."


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
    within = itertools.takewhile(bool, (keepers(summary, rows) for rows in loads))
    found = [standing(summary, rows) for rows in within]
    too_little = _too_little(summary)
    if not found:
        return Answer(shape, (), "", _nobody(summary, loads), too_little)
    # One server for all loads, where none is beaten under any; else for the lightest and the heaviest.
    good = frozenset.intersection(*(one.names for one in found)) or found[0].names & found[-1].names
    chosen = tuple(choose(summary, one, good) for one in found)
    goal = _goal(summary, loads, chosen[-1].result.subject)
    return Answer(shape, chosen, goal, too_little=too_little)


def _too_little(summary: Summary) -> str:
    """A run that was made to see whether everything works, or for a first impression, chooses nothing."""
    presets = {run.preset for run in summary.runs} & {"smoke", "quick"}
    repeats = min((len(result.cells) for result in summary.results if result.values), default=0)
    if not presets or repeats >= FEWEST_REPEATS:
        return ""
    return (
        f"Too little data to choose: {plural(repeats, 'repeat')} of each load, preset {min(presets)} "
        "(--preset standard measures enough)."
    )


def keepers(summary: Summary, rows: Sequence[Result]) -> list[Result]:
    """Those who keep the first goal, where there is one."""
    if not summary.slos:
        return list(rows)
    share = f"attained_{next(iter(summary.slos))}"
    return [row for row in rows if row.get(share, 0.0) >= KEPT]


def _nobody(summary: Summary, loads: Sequence[Sequence[Result]]) -> str:
    name, limits = next(iter(summary.slos.items()))
    share = f"attained_{name}"
    row = max((row for rows in loads for row in rows), key=lambda row: row.get(share, 0.0))
    return (
        f"None of these servers keeps {limits_of(limits)} for {100 * KEPT:.0f} % of its requests, not even "
        f"under the lightest load measured; the nearest is {row.subject} with {_load(row)}: "
        f"{100 * row.get(share, 0.0):.0f} %. Measure lighter loads, or take a looser goal."
    )


def loads_of(summary: Summary, shape: tuple[int, int]) -> list[list[Result]]:
    """Results of one shape by load, light to heavy; closed loops where there are any."""
    rows = [r for r in summary.results if r.shape == shape and r.values]
    mode = "closed" if any(r.load.mode == "closed" for r in rows) else "open"
    groups: dict[str, list[Result]] = {}
    for row in rows:
        if row.load.mode == mode:
            groups.setdefault(row.group, []).append(row)
    return list(groups.values())


def standing(summary: Summary, rows: Sequence[Result], metric: str = "output_tps") -> Standing:
    """``rows`` from the best down, by a figure of which more is better (or, for times, less)."""
    sign = -1 if figure(metric).higher_is_better else 1
    ranked = sorted((row for row in rows if metric in row.values), key=lambda row: sign * row[metric])
    found = [(row, compare(ranked[0], row, metric, summary.slos)) for row in ranked[1:]]
    return Standing((*ranked[:1], *(row for row, one in found if one and one.tied)), tuple(ranked))


def choose(summary: Summary, found: Standing, among: frozenset[str] = frozenset()) -> Choice:
    """Of those that are as good as the best, the smallest file. ``among`` narrows them, where it can."""
    sizes = summary.sizes
    able = [row for row in found.best if row.subject in among] or list(found.best)
    comparable = all(row.subject in sizes for row in able)
    picked = min(able, key=lambda row: sizes[row.subject]) if comparable else able[0]
    same, behind = [], None
    for row in found.rows:
        if row.subject == picked.subject:
            continue
        one = compare(picked, row, "output_tps", summary.slos)
        if row.subject in found.names or (one is not None and one.tied):
            same.append(row.subject)
        else:
            behind = behind or one
    own = sizes.get(picked.subject)
    smallest = own is not None and all(own < sizes.get(name, 0) for name in same)
    return Choice(picked, tuple(same), behind, smallest)


def _goal(summary: Summary, loads: Sequence[Sequence[Result]], subject: str) -> str:
    """Of the first goal: how far the chosen subject can be loaded and still keep it."""
    if not summary.slos:
        return ""
    name, limits = next(iter(summary.slos.items()))
    goal = limits_of(limits)
    rows = [row for group in loads for row in group if row.subject == subject]
    kept = list(_kept(rows, f"attained_{name}"))
    if not kept:
        return f"At none of these loads do {100 * KEPT:.0f} % of its requests meet {goal}."
    keeps = f"{subject} keeps {goal} for {100 * KEPT:.0f} % of the requests up to {_load(kept[-1])}"
    if len(kept) == len(rows):
        return f"{keeps}, the heaviest load measured."
    missed = rows[len(kept)]
    return f"{keeps}; with {_load(missed)} {100 * missed[f'attained_{name}']:.0f} % meet it."


def _kept(rows: Sequence[Result], share: str) -> Iterator[Result]:
    for row in rows:
        if row.get(share, 0.0) < KEPT:
            return
        yield row


def limitation(summary: Summary, warnings: Sequence[str]) -> str:
    """The one doubt that the first page carries: the gravest warning, or what the measurement leaves out."""
    if warnings:
        return warnings[0]
    repeats = max((len(result.cells) for result in summary.results), default=0)
    return (
        f"synthetic prompts on one machine, {plural(repeats, 'repeat')}; other prompts and machines will "
        "differ"
    )
