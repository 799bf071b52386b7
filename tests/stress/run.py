"""200 requests at once and each alone, greedy, on the real model: are the texts the same?

    python -m tests.stress.run --model models/f16.gguf --out reports/stress-f16

Overlapping prefixes, cancels, priorities and tenants at random, in both KV layouts; the unified one has too
few cells, so that running requests are preempted. A text that differs is excused where the two most likely
tokens were closer than the measured floor, and at most one of a hundred may. Exit status 1 otherwise.
About 10 minutes on two cores; what else runs on the machine does not matter.
"""

from __future__ import annotations

from rllm.backends.llama.backend import LlamaBackend  # isort: skip  (before numpy)

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from rllm.backends.options import LlamaOptions
from rllm.engine.drafts import Drafter
from rllm.engine.types import EngineRequest, FinishReason
from rllm_bench.records import environment
from tests.stress.compare import (
    TEXTS,
    Difference,
    Floor,
    Text,
    difference,
    first_difference,
    measure_floor,
    open_model,
)
from tests.stress.drive import Said, Together, alone, together
from tests.stress.workload import Arrival, Shape, arrivals

SOURCE = Path(__file__).parents[2] / "bench" / "rllm_bench" / "quality" / "data" / "wiki.test.raw"


@dataclass(frozen=True)
class Outcome:
    layout: str
    together: Together
    alone: dict[str, Said]
    floor: Floor
    differences: list[Difference]
    cut_short: list[str]
    """Requests of which nothing differs, but one text ends before the other: never excused."""

    @property
    def unexcused(self) -> list[Difference]:
        return [one for one in self.differences if one.gap > self.floor.gap]

    @property
    def is_good(self) -> bool:
        few = len(self.differences) * 100 <= len(self.together.said)
        return few and not self.unexcused and not self.cut_short


def layouts(slots: int, ctx: int, threads: int, ubatch_size: int) -> dict[str, LlamaOptions]:
    """The unified cache has a quarter of the cells that the slots could fill."""
    sizes = {
        "slots": slots,
        "ctx_per_slot": ctx,
        "threads": threads,
        "batch_size": 256,
        "ubatch_size": ubatch_size,
    }
    return {
        "split": LlamaOptions(**sizes, kv="split"),
        "unified": LlamaOptions(**sizes, kv="unified", kv_cells=slots * ctx // 4),
    }


def run(
    model: Path,
    layout: str,
    options: LlamaOptions,
    shape: Shape,
    source: Sequence[int] = (),
    drafter: Drafter | None = None,
) -> Outcome:
    """
    Args:
        drafter: for those who are together; who is alone gets no drafts.
        source: tokens that prompts are made of; by default a text that the model knows how to go on with.
    """
    backend = LlamaBackend(model, options)
    try:
        if not source:
            text = SOURCE.read_text()[:400_000]
            source = backend.vocabulary.tokenize(text, add_special=False, parse_special=False)
        wanted = arrivals(source, shape)
        among = together(backend, wanted, drafter)
        apart = {a.request.id: alone(backend, _as_far(a, among.said[a.request.id])) for a in wanted}
    finally:
        backend.close()
    return _compare(model, layout, options, wanted, among, apart)


def _as_far(arrival: Arrival, said: Said) -> EngineRequest:
    """The request, ending where its client left."""
    request = arrival.request
    if said.finish is not FinishReason.CANCELLED:
        return request
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return EngineRequest(**{**fields, "max_tokens": max(1, len(said.tokens))})


def _compare(
    model: Path,
    layout: str,
    options: LlamaOptions,
    wanted: Sequence[Arrival],
    among: Together,
    apart: dict[str, Said],
) -> Outcome:
    texts = {a.request.id: Text(a.request.prompt, tuple(apart[a.request.id].tokens)) for a in wanted}
    longest = sorted(texts.values(), key=lambda text: -len(text.tokens))[:TEXTS]
    differences, cut_short = [], []
    with open_model(
        model, options.ctx_per_slot, threads=options.threads, ubatch_size=options.ubatch_size
    ) as logits:
        floor = measure_floor(logits, longest)
        for request_id, said in among.said.items():
            own = apart[request_id]
            at = first_difference(own.tokens, said.tokens)
            if at is not None:
                differences.append(difference(logits, request_id, texts[request_id], at))
            elif not _ends_alike(said, own):
                cut_short.append(request_id)
    return Outcome(layout, among, apart, floor, differences, cut_short)


def _ends_alike(among: Said, alone: Said) -> bool:
    if among.finish is FinishReason.CANCELLED:
        return True
    succeeded = among.finish in (FinishReason.STOP, FinishReason.LENGTH)
    return succeeded and (among.finish, among.tokens) == (alone.finish, alone.tokens)


def row(outcome: Outcome) -> list[Any]:
    said = outcome.together.said.values()
    cancelled = sum(one.finish is FinishReason.CANCELLED for one in said)
    return [
        outcome.layout,
        len(said),
        cancelled,
        outcome.together.most_running,
        outcome.together.cached_tokens,
        outcome.together.evicted_tokens,
        outcome.together.preemptions,
        sum(len(one.tokens) for one in said),
        len(outcome.differences),
        len(outcome.unexcused) + len(outcome.cut_short),
        f"{outcome.floor.gap:.3g}",
        f"{outcome.floor.top_gap:.3g}",
    ]


HEAD = (
    "KV layout", "requests", "cancelled", "most at once", "tokens reused", "evicted", "preemptions",
    "tokens said", "texts that differ", "not excused", "floor", "of the top two",
)  # fmt: skip


def report(model: Path, ubatch_size: int, shape: Shape, outcomes: Sequence[Outcome]) -> str:
    lines = [
        f"# {shape.count} requests at once and each alone: {model.name}, ubatch {ubatch_size}",
        "",
        f"Seed {shape.seed}, prompts of up to {shape.max_prompt} tokens, answers of up to "
        f"{shape.max_tokens}, greedy. The floor is how far two logits of one position moved against each "
        "other, at most, when the same texts were computed alone, beside others, by the token and in pieces.",
        "",
        tabulate([row(outcome) for outcome in outcomes], HEAD, tablefmt="github", disable_numparse=True),
        "",
    ]
    for outcome in outcomes:
        for one in outcome.differences:
            excuse = "excused" if one.gap <= outcome.floor.gap else "NOT excused"
            lines.append(
                f"- {outcome.layout}, {one.request_id}: differs from token {one.at} on, where the two most "
                f"likely are {one.gap:.3g} apart: {excuse}"
            )
        lines += [f"- {outcome.layout}, {name}: ends elsewhere" for name in outcome.cut_short]
    verdict = "passed" if all(outcome.is_good for outcome in outcomes) else "FAILED"
    return "\n".join(
        [*lines, "", f"**{verdict}** (at most 1 % of the texts may differ, all of them excused)", ""]
    )


def record(outcome: Outcome) -> dict[str, Any]:
    said = {
        name: {"among others": asdict(one), "alone": asdict(outcome.alone[name])}
        for name, one in outcome.together.said.items()
    }
    facts = {name: value for name, value in asdict(outcome.together).items() if name != "said"}
    return {
        "layout": outcome.layout,
        **facts,
        "floor": asdict(outcome.floor),
        "differences": [asdict(one) for one in outcome.differences],
        "cut_short": outcome.cut_short,
        "requests": said,
    }


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/f16.gguf"))
@click.option("--requests", default=200, show_default=True)
@click.option("--slots", default=16, show_default=True)
@click.option("--ctx-size", default=512, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--layout", default="split,unified", show_default=True)
@click.option("--ubatch-size", default=256, show_default=True, help="Below 64 flash attention has one path.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.md and raw.json.")
def main(
    model: Path,
    requests: int,
    slots: int,
    ctx_size: int,
    threads: int,
    seed: int,
    layout: str,
    ubatch_size: int,
    out: Path | None,
) -> None:
    shape = Shape(requests, max_prompt=ctx_size * 3 // 4, max_tokens=ctx_size // 8, seed=seed)
    options = layouts(slots, ctx_size, threads, ubatch_size)
    outcomes = []
    for name in layout.split(","):
        outcomes.append(run(model, name, options[name], shape))
        click.echo(tabulate([row(outcomes[-1])], HEAD), err=True)
    text = report(model, ubatch_size, shape, outcomes)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        facts = {"environment": environment.describe(), "model": environment.sha256(model)}
        raw = {
            **facts,
            "ubatch_size": ubatch_size,
            "shape": asdict(shape),
            "outcomes": [record(outcome) for outcome in outcomes],
        }
        (out / "raw.json").write_text(json.dumps(raw))
        (out / "report.md").write_text(text)
    click.echo(text)
    raise SystemExit(0 if all(outcome.is_good for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
