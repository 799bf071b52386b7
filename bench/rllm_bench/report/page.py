"""Markdown, the last step: everything is computed again from the raw records, nothing is parsed back."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from rllm_bench.figures import cost, metrics
from rllm_bench.figures.compare import MARGIN
from rllm_bench.figures.words import machine, number, plural, slo
from rllm_bench.records.runs import RunRecord
from rllm_bench.report import checks, plots, study, tables, versus
from rllm_bench.report.answer import answer, limitation, loads_of
from rllm_bench.report.first_page import first_page
from rllm_bench.report.quoting import to_know
from rllm_bench.report.sources import Sources, read
from rllm_bench.targets.compute_path import in_words

Say = Callable[[str], None]


def render(folders: Sequence[Path], out: Path, extra: Sequence[Path] = (), say: Say | None = None) -> Path:
    """Writes report.md and its plots into ``out``; returns the report, and tells ``say`` its answer.

    ``extra``: ceiling.json or quality result files from elsewhere.
    """
    sources = read(folders, extra)
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.md"
    report.write_text("\n".join(_document(sources, out)) + "\n")
    if say is not None:
        for line in _answer(sources):
            say(line)
    return report


def _answer(sources: Sources) -> Iterator[str]:
    """The first page's, for a console."""
    summary, run = sources.summary, sources.run
    match run.kind:
        case "versus":
            yield from versus.answer_lines(summary)
        case "study":
            if run.goals:
                yield study.goals(run.goals, summary.results)
        case "matrix":
            if (found := answer(summary)) is not None:
                yield from found.sentences
                yield f"Limitation: {limitation(summary, list(checks.warnings(summary)))}."


def _document(sources: Sources, out: Path) -> Iterator[str]:
    look = plots.Look(sources.summary.subjects)
    doubts = list(dict.fromkeys(checks.warnings(sources.summary)))
    match sources.run.kind:
        case "versus":
            yield from versus.first_page(sources.summary)
            yield from to_know(sources)
            yield ""
            yield from _setup(sources)
        case "study":
            yield from study.first_page(sources.summary, look, out)
            yield from to_know(sources)
            yield ""
            yield from _setup(sources)
        case "matrix":
            yield from first_page(sources, look, out, doubts)
            yield from _setup(sources)
            yield from _results(sources, look, out)
            yield from _efficiency(sources)
            yield from _costs(sources, look, out)
    yield from _doubts(doubts)
    yield from _reproduce(sources)


def _setup(sources: Sources) -> Iterator[str]:
    run = sources.run
    yield "## What was measured"
    yield ""
    settings = run.settings
    yield (
        f"Every server was given the same: {plural(settings.slots, 'slot')} of {settings.ctx_per_slot} "
        f"tokens, {f'{settings.threads} threads' if settings.threads else 'its own choice of threads'}, "
        f"prefix cache {'on' if settings.prefix_cache else 'off'}, greedy sampling, output length fixed by "
        "ignore_eos, prompts of the same token ids in the same order."
    )
    yield ""
    rows = []
    for one, known in ((run, subject) for run in sources.summary.runs for subject in run.subjects):
        tuned = "tuned" if one.settings.extra.get(known.engine) else "default"
        size = f"{known.model_bytes / 1e6:,.0f} MB" if known.model_bytes else "–"
        state = f"**not measured: {known.missing}**" if known.missing else known.version or "unknown"
        kind = sources.file_type(known) or "–"
        rows.append([known.name, state, tuned, f"`{known.model}`" if known.model else "–", kind, size])
    yield tables.markdown(["subject", "version", "options", "model", "type", "size"], rows)
    yield ""
    yield from _commands(sources)
    yield "### Machine"
    yield ""
    for one in sources.summary.runs:
        yield from _machine(one)


def _commands(sources: Sources) -> Iterator[str]:
    """How each server was started, once however often it was."""
    seen: dict[str, dict[str, object]] = {}
    for cell in sources.summary.cells:
        target, command = cell.record.target, cell.record.target.get("command")
        if cell.record.error is None:
            how = (
                shlex.join(_plain(command))
                if isinstance(command, list)
                else f"running at {target['base_url']}"
            )
            seen.setdefault(f"- {cell.record.spec.subject}: `{how}`", target)
    for line, target in seen.items():
        yield line
        notes = target.get("notes")
        yield from (f"  - {note}" for note in notes) if isinstance(notes, list) else ()
        path = target.get("compute_path")
        yield from [f"  - computed by: {in_words(path)}"] if isinstance(path, dict) and path else []
    if seen:
        yield ""


def _plain(command: list[str]) -> list[str]:
    """A command line as a reader can type it: without this machine's path of the interpreter or port."""
    words = [Path(command[0]).name if "/" in command[0] else command[0], *command[1:]]
    if "--port" in words:
        words[words.index("--port") + 1] = "PORT"
    return words


def _machine(run: RunRecord) -> Iterator[str]:
    environment = run.environment
    cpu, git = environment["cpu"], environment["git"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    rows = [
        ["machine", machine(environment)],
        ["CPU features", ", ".join(cpu["features"]) or "–"],
        *[
            ["GPU", f"{card['name']}, driver {card['driver']}, power limit {card['power_limit_w']} W"]
            for card in environment["gpus"]
        ],
        ["system", f"{environment['os']}, Python {environment['python']}"],
        ["packages", packages],
        ["commit", f"`{git['commit']}`{' with changes' if git['dirty'] else ''}"],
        ["load average at start", ", ".join(map(str, environment["load_average"]))],
        ["begun", run.created_at],
    ]
    yield tables.markdown([f"run {run.name}", ""], rows)
    yield ""


def _results(sources: Sources, look: plots.Look, out: Path) -> Iterator[str]:
    summary = sources.summary
    yield "## Results"
    yield ""
    yield (
        "Times in ms. `value [low, high]` is a 95 % interval from resampling requests within runs, "
        "`(min–max)` the range over repeats. Latencies count from when a request was due. Cells with at "
        f"least {metrics.STEADY_REQUESTS_PER_USER} requests per user are judged over their steady window, "
        "others over the whole run."
    )
    yield ""
    for shape in summary.shapes:
        if not loads_of(summary, shape):
            continue
        name = f"load-p{shape[0]}-o{shape[1]}"
        yield f"### {tables.shape_name(shape)}"
        yield ""
        picture = plots.save(plots.over_load(summary, look, shape), out / "plots", name)
        yield f"![throughput and latency over load]({picture})"
        yield ""
        yield tables.latency_table(summary, shape)
        yield ""
        if any(checks.is_disturbed(summary, r) for r in summary.results if r.shape == shape):
            yield f"† others used more than {100 * checks.BUSY_LIMIT:.0f} % of the machine meanwhile."
            yield ""
        figure = plots.pareto(summary, look, shape)
        if figure is not None:
            yield (
                "![throughput against "
                f"interactivity]({plots.save(figure, out / 'plots', f'pareto-p{shape[0]}-o{shape[1]}')})"
            )
            yield ""
    axes: tuple[Literal["prompt", "output"], ...] = ("prompt", "output")
    for axis in axes:
        if (lengths := plots.over_length(summary, look, axis)) is not None:
            yield f"### Over the length of the {'prompt' if axis == 'prompt' else 'answer'}"
            yield ""
            yield f"![over length]({plots.save(lengths, out / 'plots', f'over-{axis}')})"
            yield ""
    yield "### Goodput: requests per second that meet a goal"
    yield ""
    yield tables.goodput_table(summary)
    yield ""
    yield "### Resources"
    yield ""
    yield tables.resource_table(summary)
    yield ""
    verdicts = tables.verdict_table(summary, summary.subjects[0]) if summary.subjects else ""
    if verdicts:
        yield f"### Against {summary.subjects[0]}"
        yield ""
        yield (
            "Above 1 is better, also for times. Without brackets: too few repeats for a verdict; ≈ marks "
            f"what then counts as no difference (at most {100 * MARGIN:.0f} %, or repeats that overlap)."
        )
        yield ""
        yield verdicts
        yield ""


def _efficiency(sources: Sources) -> Iterator[str]:
    yield "## Roofline and efficiency"
    yield ""
    if not sources.ceilings:
        yield (
            "Not shown: the engine alone and the memory bandwidth were not measured here (`rllm-bench "
            "ceiling --out` this folder)."
        )
        yield ""
        return
    bandwidth = max(ceiling.bandwidth_bytes_s for ceiling in sources.ceilings)
    yield (
        f"Memory streams {bandwidth / 1e9:.1f} GB/s ({sources.ceilings[0].bandwidth_source}). A decode step "
        "reads every weight once, so bandwidth over model size bounds the steps per second of any engine; "
        "“engine alone” is llama.cpp in batches without a server."
    )
    yield ""
    yield tables.roofline_table(sources.summary, sources.ceilings)
    yield ""
    rows = [
        [
            Path(c.job.model).name,
            number(c.measured.prefill_tps),
            *(number(p.tokens_per_s) for p in c.measured.decode),
        ]
        for c in sources.ceilings
    ]
    batches = [f"decode B={p.batch}" for p in sources.ceilings[0].measured.decode]
    yield tables.markdown(["engine alone", "prefill tokens/s", *batches], rows)
    yield ""


def _costs(sources: Sources, look: plots.Look, out: Path) -> Iterator[str]:
    run = sources.run
    yield "## Cost"
    yield ""
    if run.price_per_hour is None:
        yield f"Not shown: {run.price_source}."
        yield ""
        return
    yield (
        f"Assumption, not a measurement: this machine costs {run.price_per_hour:.2f} USD an hour "
        f"({run.price_source}). Costs are for the machine in full use under each load."
    )
    yield ""
    yield tables.cost_table(sources.summary, run)
    yield ""
    points = _cost_points(sources)
    figure = plots.cost_quality(points, look, "mean KL divergence to F16 (nats)")
    if figure is not None:
        yield f"![cost against quality]({plots.save(figure, out / 'plots', 'cost-quality')})"
        yield ""


def _cost_points(sources: Sources) -> list[tuple[str, float, float]]:
    """Subjects whose model file has a quality result; both at the heaviest load of the middle shape."""
    found = answer(sources.summary)
    price = sources.run.price_per_hour
    if found is None or price is None:
        return []
    return [
        (row.subject, cost.per_1k_tokens(price, row["output_tps"]), kld)
        for row in loads_of(sources.summary, found.shape)[-1]
        if row.known is not None and (kld := sources.kld(row.known)) is not None
    ]


def _doubts(doubts: Sequence[str]) -> Iterator[str]:
    yield "## Validity"
    yield ""
    yield "What this report holds against itself:"
    yield ""
    for doubt in doubts or ["nothing was found by its own checks, which does not make it true elsewhere"]:
        yield f"- {doubt}."
    yield (
        "- Synthetic prompts have no meaning: speed is that of real text of the same length, answers are not."
    )
    yield ""


def _reproduce(sources: Sources) -> Iterator[str]:
    yield "## How to reproduce"
    yield ""
    for run in sources.summary.runs:
        yield "```"
        yield run.command
        yield "```"
        yield ""
        yield f"Seed {run.seed}, vocabulary `{run.vocabulary}`, commit `{run.environment['git']['commit']}`."
        for subject in run.subjects:
            if subject.model_sha256:
                yield f"- `{subject.model}`: sha256 `{subject.model_sha256}`"
        yield ""
    words = [
        _below_reports(store.folder, run)
        for store, run in zip(sources.stores, sources.summary.runs, strict=True)
    ]
    words += [f"--with {place}" for place in sources.extra]
    yield f"This page from the raw records again, byte for byte: `rllm-bench report {' '.join(words)}`."
    yield f"Goals: {'; '.join(slo(name, limits) for name, limits in sources.summary.slos.items())}."
    yield ""
    yield "Hashes of what was asked, by load and repeat:"
    yield ""
    hashes = {
        (cell.record.spec.group, cell.record.spec.repeat): cell.record.workload_hash
        for cell in sources.summary.cells
        if cell.record.workload_hash
    }
    yield tables.markdown(["load", "repeat", "hash"], [[g, r, f"`{h}`"] for (g, r), h in hashes.items()])


def _below_reports(folder: Path, run: RunRecord) -> str:
    """As a reader types it in the project's folder."""
    parts = folder.parts
    if "reports" not in parts:
        return f"reports/{run.name}"
    return "/".join(parts[len(parts) - 1 - parts[::-1].index("reports") :])
