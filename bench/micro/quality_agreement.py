"""Our figures against llama-perplexity's, both reading the same --kl-divergence-base file.

    python -m micro.quality_agreement --llama-perplexity BUILD/bin/llama-perplexity \\
        --reference f16.gguf --out reports/quality-agreement q8_0.gguf q4_k_m.gguf

llama-perplexity is built from the source inside the llama-cpp-python sdist, so that both use the
same kernels. Each side is timed as a whole process, in turns, with the same number of threads.
Then we write a base file of the same text, and llama-perplexity reads that one. With three models of
SmolLM2's size it takes about five minutes on two idle cores.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

MIN_SPEED = 0.8
MAX_EXTRA_MB = 1000
_PATTERNS = {
    "PPL(Q)": r"Mean PPL\(Q\)\s*:\s*(\S+)",
    "PPL(base)": r"Mean PPL\(base\)\s*:\s*(\S+)",
    "ln(PPL(Q)/PPL(base))": r"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s*:\s*(\S+)",
    "mean KLD": r"Mean\s+KLD:\s*(\S+)",
    "maximum KLD": r"Maximum KLD:\s*(\S+)",
    "99.9 % KLD": r"99\.9%\s+KLD:\s*(\S+)",
    "99 % KLD": r"99\.0%\s+KLD:\s*(\S+)",
    "median KLD": r"Median\s+KLD:\s*(\S+)",
    "mean Δp %": r"Mean\s+Δp:\s*(\S+)",
    "RMS Δp %": r"RMS Δp\s*:\s*(\S+)",
    "same top %": r"Same top p:\s*(\S+)",
}


def theirs(binary: Path, model: Path, base: Path, threads: int) -> tuple[dict[str, float], float]:
    command = [binary, "-m", model, "--kl-divergence-base", base, "--kl-divergence", "-t", threads]
    start = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    elapsed = time.perf_counter() - start
    text = done.stdout + done.stderr
    found = {name: re.search(pattern, text) for name, pattern in _PATTERNS.items()}
    return {name: float(match[1].rstrip("%")) for name, match in found.items() if match}, elapsed


def ours(model: Path, base: Path, threads: int) -> tuple[dict[str, float], float, int]:
    command = [sys.executable, __file__, "--score-one", str(base), "--threads", str(threads), str(model)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    elapsed = time.perf_counter() - start
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["figures"], elapsed, answer["peak_bytes"]


def score_one(model_path: Path, base: Path, threads: int) -> None:
    """In a process of its own: score one variant against a base file and print the figures as JSON."""
    from rllm.backends.llama.logits import LogitModel  # isort: skip  # before numpy
    from rllm_bench.quality.kldbase import BaseReader
    from rllm_bench.quality.metrics import divergence
    from rllm_bench.quality.reference import score_variant
    from rllm_bench.quality.scorefile import ScoreFile

    with BaseReader(base) as reader:
        layout = reader.layout
    scores = ScoreFile(base.with_suffix(".scores"), layout.rows_per_chunk)
    scores.keep(0)
    with (
        ThreadPoolExecutor(threads) as pool,
        LogitModel(model_path, num_ctx=layout.num_ctx, threads=threads) as m,
    ):
        score_variant(m, base, scores, pool, lambda _done, _total: None)
    found = divergence(scores.read())
    figures = {
        "PPL(Q)": found.ppl.value,
        "PPL(base)": found.ppl_base.value,
        "ln(PPL(Q)/PPL(base))": found.ln_ppl_ratio.value,
        "mean KLD": found.kld_mean.value,
        "maximum KLD": found.kld_max,
        "99.9 % KLD": found.kld_p999,
        "99 % KLD": found.kld_p99,
        "median KLD": found.kld_median,
        "mean Δp %": 100 * found.p_diff_mean.value,
        "RMS Δp %": 100 * found.p_diff_rms.value,
        "same top %": 100 * found.same_top.value,
    }
    print(
        json.dumps(
            {"figures": figures, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        )
    )


def write_own_base(model_path: Path, like: Path, target: Path, threads: int) -> None:
    """Our base file of the tokens of another one."""
    from rllm.backends.llama.logits import LogitModel  # isort: skip  # before numpy
    from rllm_bench.quality import rows
    from rllm_bench.quality.kldbase import BaseReader, BaseWriter
    from rllm_bench.quality.windows import window_logits

    target.unlink(missing_ok=True)
    with BaseReader(like) as reader:
        layout, tokens = reader.layout, reader.tokens
    with (
        LogitModel(model_path, num_ctx=layout.num_ctx, threads=threads) as model,
        BaseWriter(target, layout, tokens) as writer,
    ):
        for window in tokens:
            writer.append(rows.encode(window_logits(model, window), layout.targets(window)).codes)


def write_base(binary: Path, model: Path, text: Path, chunks: int, base: Path, threads: int) -> None:
    command = [
        binary,
        "-m",
        model,
        "-f",
        text,
        "--chunks",
        chunks,
        "-t",
        threads,
        "--kl-divergence-base",
        base,
    ]
    subprocess.run([str(part) for part in command], capture_output=True, check=True)


def agrees(name: str, a: float, b: float) -> bool:
    """To 1 % of the value, or 1e-4; percentages are rounded by llama-perplexity to 0.001."""
    return abs(a - b) <= max(0.01 * abs(b), 1e-3 if name.endswith("%") else 1e-4)


def met(result: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Figures, speed (where it was measured) and memory of one model."""
    mine, other = result["ours"], result["theirs"]
    return (
        all(agrees(name, mine[name], value) for name, value in other.items()),
        result["speed"] >= MIN_SPEED or result["repeats"] < 2,
        result["peak_mb"] - result["model_mb"] < MAX_EXTRA_MB,
    )


def overview(measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"\n| model | figures within 1 % or 1e-4 | speed, at least {MIN_SPEED} | memory beside the model |"
    yield "| --- | --- | --- | --- |"
    for model, result in measured.items():
        mine, other = result["ours"], result["theirs"]
        close = sum(agrees(name, mine[name], value) for name, value in other.items())
        words = ["met" if good else "**missed**" for good in met(result)]
        extra = result["peak_mb"] - result["model_mb"]
        fastest = min(result["times_theirs"]) / min(result["times_ours"])
        speed = f"median {result['speed']:.2f}, fastest {fastest:.2f}: {words[1]}"
        speed = speed if result["repeats"] > 1 else "-"
        yield f"| {model} | {close} of {len(other)}: {words[0]} | {speed} | {extra:.0f} MB: {words[2]} |"


def report(measured: dict[str, dict[str, Any]], head: str) -> Iterator[str]:
    yield "# Agreement with llama-perplexity"
    yield ""
    yield head
    yield from overview(measured)
    for model, result in measured.items():
        mine, other = result["ours"], result["theirs"]
        yield f"\n## {model}\n\n| figure | llama-perplexity | ours | difference | within 1 % or 1e-4 |"
        yield "| --- | --- | --- | --- | --- |"
        for name, value in other.items():
            verdict = "yes" if agrees(name, mine[name], value) else "**no**"
            yield f"| {name} | {value:.6g} | {mine[name]:.6g} | {mine[name] - value:+.2g} | {verdict} |"
        runs = [", ".join(f"{t:.2f}" for t in result[side]) for side in ("times_theirs", "times_ours")]
        yield (
            f"\nWhole process, median of {result['repeats']}, in turns: llama-perplexity "
            f"{result['theirs_s']:.2f} s ({runs[0]}), ours {result['ours_s']:.2f} s ({runs[1]}): "
            f"{result['speed']:.2f} times its speed "
            f"(processor time {result['cpu_theirs_s']:.1f} s and {result['cpu_ours_s']:.1f} s). "
            f"Our peak memory {result['peak_mb']:.0f} MB (model file {result['model_mb']:.0f} MB)."
        )


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--llama-perplexity", "binary", type=click.Path(exists=True, path_type=Path))
@click.option("--reference", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--text", type=click.Path(exists=True, path_type=Path), help="[default: the packaged WikiText-2]"
)
@click.option("--chunks", default=16, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--scratch", default=Path("/tmp"), type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--score-one", "base_to_score", type=click.Path(path_type=Path), hidden=True)
@click.option("--write-base", "base_to_write", type=click.Path(path_type=Path), hidden=True)
def main(
    models: tuple[Path, ...],
    binary: Path,
    reference: Path,
    text: Path | None,
    chunks: int,
    threads: int,
    repeats: int,
    scratch: Path,
    out: Path,
    base_to_score: Path | None,
    base_to_write: Path | None,
) -> None:
    """Compare on MODELS; exit with 1 if a figure disagrees, or speed or memory miss their mark."""
    if base_to_write is not None and base_to_score is not None:
        write_own_base(models[0], base_to_score, base_to_write, threads)
        return
    if base_to_score is not None:
        score_one(models[0], base_to_score, threads)
        return
    if text is None:
        from rllm_bench.quality.datasets import EvaluationData

        text = EvaluationData().path("text")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=scratch, prefix="agreement-") as folder:
        measured = measure(binary, reference, models, text, Path(folder), (chunks, threads, repeats))
    out.mkdir(parents=True, exist_ok=True)
    head = (
        f"{chunks} windows of 512 tokens of `{text.name}`, reference `{reference.name}`, {threads} threads, "
        f"{time.strftime('%Y-%m-%d')}, load average at the start {load:.1f}. "
        "Both read the same base file, written by llama-perplexity; the kernels are the same commit's."
    )
    (out / "agreement.json").write_text(json.dumps(measured, indent=1) + "\n")
    (out / "agreement.md").write_text("\n".join(report(measured, head)) + "\n")
    print((out / "agreement.md").read_text())
    sys.exit(0 if all(all(met(result)) for result in measured.values()) else 1)


def measure(
    binary: Path,
    reference: Path,
    models: tuple[Path, ...],
    text: Path,
    folder: Path,
    asked: tuple[int, int, int],
) -> dict[str, dict[str, Any]]:
    """Every model against their base file, and the first one against ours."""
    chunks, threads, repeats = asked
    theirs_base, own = folder / "theirs.kld", folder / "own.kld"
    write_base(binary, reference, text, chunks, theirs_base, threads)
    measured = {}
    for model in models:
        measured[model.stem] = compare(binary, model, theirs_base, threads, repeats)
        print("\n".join(list(overview({model.stem: measured[model.stem]}))[2:]), file=sys.stderr)
    command = [sys.executable, __file__, "--write-base", own, "--score-one", theirs_base, reference]
    subprocess.run([str(part) for part in [*command, "--threads", threads]], check=True)
    measured[f"{models[0].stem}, base file written by us"] = compare(binary, models[0], own, threads, 1)
    return measured


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(binary: Path, model: Path, base: Path, threads: int, repeats: int) -> dict[str, Any]:
    their_times, our_times, peak, cpu = [], [], 0, [children_cpu_s()]
    for _ in range(repeats):
        other, elapsed = theirs(binary, model, base, threads)
        their_times.append(elapsed)
        cpu.append(children_cpu_s())
        mine, elapsed, peak = ours(model, base, threads)
        our_times.append(elapsed)
        cpu.append(children_cpu_s())
    spent = [after - before for before, after in pairwise(cpu)]
    their_s, our_s = statistics.median(their_times), statistics.median(our_times)
    return {
        "theirs": other, "ours": mine, "repeats": repeats, "theirs_s": their_s, "ours_s": our_s,
        "speed": their_s / our_s, "peak_mb": peak / 1e6, "model_mb": model.stat().st_size / 1e6,
        "cpu_theirs_s": statistics.median(spent[::2]), "cpu_ours_s": statistics.median(spent[1::2]),
        "times_theirs": their_times, "times_ours": our_times,
    }  # fmt: skip


if __name__ == "__main__":
    main()
