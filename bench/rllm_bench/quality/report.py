"""The report of a quality run, in Markdown. Reads results only; nothing is measured or computed anew here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rllm_bench.quality import words
from rllm_bench.quality.gate import Limits, Verdict, judge
from rllm_bench.quality.metrics import Divergence
from rllm_bench.quality.results import QualityRun, VariantResult
from rllm_bench.quality.words import estimate
from rllm_bench.report.tables import unaligned

_EXACT = {"F32", "F16", "BF16", "F64"}


def render(run: QualityRun, limits: Sequence[Limits], plot: str | None) -> str:
    verdicts = {result.model.name: judge(result, limits) for result in run.variants}
    sections = (
        _head(run),
        _answers(run, verdicts),
        [f"![Quality against size]({plot})", ""] if plot else [],
        _figures(run, verdicts),
        _floor(run),
        _matrices(run),
        _tasks(run),
        _types(run),
        _served(run),
        _limits(verdicts),
        _notes(run),
    )
    return "\n".join(line for section in sections for line in section)


def _head(run: QualityRun) -> Iterator[str]:
    model, asked, machine = run.reference.model, run.settings, run.environment
    yield f"# Quality of the variants of {model.name}"
    yield ""
    scored = run.floor.storage.num_tokens if run.floor.storage else 0
    yield (
        f"Reference: `{Path(model.path).name}` ({model.file_type}, sha256 `{model.sha256[:16]}`). "
        f"{scored:,} scored tokens in windows of {asked.num_ctx} of `{run.data.get('text', '-')}`; "
        "the second half of each window is scored. "
        f"Run of {run.created} on {machine.get('cpu', {}).get('model', 'an unknown machine')}, "
        f"llama-cpp-python {machine.get('packages', {}).get('llama-cpp-python', '?')}, "
        f"commit {machine.get('git', {}).get('commit', 'unknown')}."
    )
    yield ""
    if run.peak_memory_bytes:
        largest = max(result.model.file_bytes for result in (run.reference, *run.variants))
        yield (
            f"Peak memory of the run: {run.peak_memory_bytes / 1e6:,.0f} MB, mapped model files included; "
            f"the largest of them has {largest / 1e6:,.0f} MB."
        )
        yield ""


def _answers(run: QualityRun, verdicts: dict[str, Verdict]) -> Iterator[str]:
    if not run.variants:
        return
    yield "## In words"
    yield ""
    for result in run.variants:
        yield f"- {words.paragraph(result, run.floor, verdicts[result.model.name])}"
    yield ""


def _figures(run: QualityRun, verdicts: dict[str, Verdict]) -> Iterator[str]:
    measured = [(result, result.divergence) for result in run.variants if result.divergence is not None]
    if not measured:
        return
    yield "## Perplexity and divergence"
    yield ""
    yield from unaligned(
        ("variant", "MB", "bits/weight", "PPL", "PPL ratio", "mean KLD", "median", "99 %", "99.9 %", "max",
         "RMS Δp %", "same top %", "gate"),
        [_figure_row(result, found, verdicts[result.model.name]) for result, found in measured]
        + _floor_rows(run),
    )  # fmt: skip
    yield ""
    yield (
        f"Reference: PPL {estimate(run.reference.ppl, 3)}. Definitions are llama-perplexity's; KLD is the "
        "divergence from the reference in nats, Δp the change of the right token's probability. The PPL "
        "ratio is against the reference's exact perplexity; llama-perplexity prints it against the reference "
        "stored in 16 bits, which cuts off tokens rarer than e⁻¹⁶ and so makes the reference look better "
        "than it is."
    )
    yield ""


def _figure_row(result: VariantResult, found: Divergence, verdict: Verdict) -> tuple[str, ...]:
    return (
        result.model.name,
        f"{result.model.file_bytes / 1e6:.0f}",
        f"{result.model.bits_per_weight:.2f}",
        estimate(result.ppl, 3),
        estimate(result.ppl_ratio),
        estimate(found.kld_mean, 5),
        *_tail(found),
        "pass" if verdict.passed else "**fail**",
    )


def _floor_rows(run: QualityRun) -> list[tuple[str, ...]]:
    rows = []
    for name, found in (
        ("noise: storage", run.floor.storage),
        ("noise: batch 1 against 32", run.floor.batching),
    ):
        if found is not None:
            rows.append((name, "", "", "", "", estimate(found.kld_mean, 5), *_tail(found), ""))
    return rows


def _tail(found: Divergence) -> tuple[str, ...]:
    spread = (found.kld_median, found.kld_p99, found.kld_p999, found.kld_max)
    return (
        *(f"{value:.4f}" for value in spread),
        estimate(found.p_diff_rms, 2, 100),
        estimate(found.same_top, 2, 100),
    )


def _floor(run: QualityRun) -> Iterator[str]:
    if run.floor.storage is None or run.floor.batching is None:
        return
    yield "## Noise floor"
    yield ""
    yield (
        "The reference differs from itself: its distributions stored in 16 bits by a mean KLD of "
        f"{run.floor.storage.kld_mean.value:.2g}, and decoding 32 sequences side by side from one at a time "
        f"by {run.floor.batching.kld_mean.value:.2g} ({words.changed_tokens(run.floor.batching.same_top)}). "
        f"A variant whose mean KLD is not above {run.floor.mean_kld:.2g} is not told apart from the "
        "reference by this run, and no difference below that is a regression."
    )
    yield ""


def _matrices(run: QualityRun) -> Iterator[str]:
    if not run.matrices:
        return
    yield "## With and without an importance matrix"
    yield ""
    named = {result.model.name: result for result in run.variants}
    rows = []
    for gain in run.matrices:
        plain, made = named[gain.without], named[gain.matrix]
        rows.append(
            (
                made.model.file_type,
                gain.without,
                gain.matrix,
                *(f"{r.divergence.kld_mean.value:.5f}" if r.divergence else "-" for r in (plain, made)),
                estimate(gain.kld, 5),
                estimate(gain.same_top, 2, 100),
                estimate(plain.ppl_ratio),
                estimate(made.ppl_ratio),
                gain.verdict,
            )
        )
    yield from unaligned(
        ("type", "without", "with", "mean KLD without", "with", "gain", "same top gain %",
         "PPL ratio without", "with", "the matrix makes it"),
        rows,
    )  # fmt: skip
    yield ""
    yield (
        "Gains are differences token by token with their standard errors; less than two of them counts as no "
        "difference. A matrix follows the text it was made from: on another kind of text it may help less."
    )
    yield ""


def _tasks(run: QualityRun) -> Iterator[str]:
    results = [run.reference, *run.variants]
    if any(result.pairs for result in results):
        yield from _choice_table(
            f"Choice task: minimal pairs of `{run.data.get('pairs', '-')}`", "pairs", run
        )
    if any(result.problems for result in results):
        yield from _choice_table(f"Generation task: `{run.data.get('problems', '-')}`", "problems", run)
        solved = run.reference.problems
        if solved is not None and solved.accuracy < 0.1:
            yield "The reference solves less than a tenth of the problems: its flips say nothing."
            yield ""
    greedy = [(result.model.name, result.greedy) for result in run.variants if result.greedy]
    if greedy:
        yield "## Greedy agreement"
        yield ""
        if run.floor.greedy is not None:
            greedy.append(("noise: reading instead of writing", run.floor.greedy))
        yield from unaligned(
            ("variant", "texts", "identical", "median tokens before the first difference, or in all"),
            [(name, str(len(g.lengths)), str(g.exact), f"{g.median_agreed:.0f}") for name, g in greedy],
        )
        yield ""


def _choice_table(title: str, task: str, run: QualityRun) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    rows = [(result.model.name, getattr(result, task)) for result in (run.reference, *run.variants)]
    if task == "pairs":
        rows.append(("noise: one at a time", run.floor.pairs))
    yield from unaligned(
        (
            "variant",
            "right",
            "accuracy (95 %)",
            "right → wrong",
            "wrong → right",
            "flips (95 %)",
            "McNemar p",
        ),
        [_choice_row(name, found) for name, found in rows if found is not None],
    )
    yield ""


def _choice_row(name: str, found: Any) -> tuple[str, ...]:
    right, flip = found.accuracy_interval, found.flip_interval
    return (
        name,
        f"{found.right}/{found.total}",
        f"{found.accuracy:.1%} ({right.low:.1%} to {right.high:.1%})",
        str(found.lost),
        str(found.gained),
        f"{found.flipped / found.total:.1%} ({flip.low:.1%} to {flip.high:.1%})",
        f"{found.p_value:.3g}",
    )


def _types(run: QualityRun) -> Iterator[str]:
    yield "## What the files really hold"
    yield ""
    rows = []
    for result in (run.reference, *run.variants):
        shares = ", ".join(
            f"{name} {share:.0%}" for name, share in result.model.type_shares.items() if share >= 0.005
        )
        rows.append((result.model.name, result.model.file_type, shares, f"`{result.model.sha256[:16]}`"))
    yield from unaligned(("file", "calls itself", "share of the parameters by tensor type", "sha256"), rows)
    yield ""


def _served(run: QualityRun) -> Iterator[str]:
    if not run.served:
        return
    yield "## Served models"
    yield ""
    yield from unaligned(
        ("served", "PPL", "PPL ratio", "same top %"),
        [
            (r.model.name, estimate(r.ppl, 3), estimate(r.ppl_ratio), estimate(r.same_top, 2, 100))
            for r in run.served
        ],
    )
    yield ""
    yield "A server gives a few tokens' log-probabilities only: no KL divergence, and no gate."
    yield ""


def _limits(verdicts: dict[str, Verdict]) -> Iterator[str]:
    if not verdicts:
        return
    yield "## The gate"
    yield ""
    rows = []
    for name, verdict in verdicts.items():
        for check in verdict.checks:
            value = "not measured" if check.value is None else f"{check.value:.4g}"
            rows.append(
                (
                    name,
                    verdict.limits,
                    check.what,
                    value,
                    f"{check.limit:g}",
                    "pass" if check.passed else "**fail**",
                )
            )
    yield from unaligned(("variant", "class", "figure", "value", "limit", ""), rows)
    yield ""


def _notes(run: QualityRun) -> Iterator[str]:
    notes = list(run.notes)
    model = run.reference.model
    if set(model.type_shares) - _EXACT:
        notes.append("The reference is itself quantized: what it lost before is not counted here.")
    if model.odd_rows > 0.01:
        notes.append(
            f"{model.odd_rows:.0%} of the parameters lie in rows that 256 does not divide. No K type can "
            "hold them: "
            "llama.cpp falls back to Q4_0, Q5_0 or Q8_0, so these K variants are not those of other models."
        )
    if notes:
        yield "## Doubts"
        yield ""
        yield from (f"- {note}" for note in notes)
        yield ""
