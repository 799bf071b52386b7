"""``rllm-bench quality``. Imports the rest only when it runs: llama.cpp must be loaded before numpy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from rllm_bench.commands.address import Address

_TASKS = ("divergence", "greedy", "pairs", "problems")
_KINDS = ("text", "pairs", "problems")
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(file_okay=False, path_type=Path)


def _own_data(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    own = {}
    for value in values:
        kind, sign, path = value.partition("=")
        if kind not in _KINDS or not sign or not Path(path).is_file():
            raise click.BadParameter(f"{value!r}: expected text=FILE, pairs=FILE or problems=FILE")
        own[kind] = Path(path)
    return own


@click.command()
@click.argument("variants", nargs=-1, type=_file)
@click.option("--reference", required=True, type=_file, help="The unquantized model (F16, BF16 or F32 GGUF).")
@click.option(
    "--url",
    "urls",
    multiple=True,
    type=Address(),
    help="A served model, scored by its prompt log-probabilities.",
)
@click.option(
    "-o", "--out", required=True, type=_folder, help="Folder of records and report; resumed if it exists."
)
@click.option("--ctx", default=512, show_default=True, type=click.IntRange(16), help="Tokens in a window.")
@click.option("--chunks", default=32, show_default=True, type=click.IntRange(2), help="Windows of the text.")
@click.option("--all-chunks", is_flag=True, help="The whole text instead.")
@click.option(
    "--task", "tasks", multiple=True, type=click.Choice(_TASKS), default=_TASKS[:3], show_default=True
)
@click.option("--prompts", default=100, show_default=True, help="Texts of the greedy comparison.")
@click.option("--prompt-tokens", default=64, show_default=True, help="Tokens the reference writes for each.")
@click.option("--pairs", default=None, type=click.IntRange(1), help="Minimal pairs.  [default: all]")
@click.option("--problems", default=100, show_default=True, help="Problems of the generation task.")
@click.option(
    "--data", "own", multiple=True, callback=_own_data, help="text=FILE, pairs=FILE or problems=FILE."
)
@click.option("--threads", default=0, show_default="all cores", type=click.IntRange(0))
@click.option("--gpu-layers", default=-1, show_default="all", type=int)
@click.option("--cache-dir", default=None, type=_folder, help="Where reference runs are kept.")
@click.option("--cache-limit-gb", default=8.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--thresholds", default=None, type=_file, help="A TOML of classes and limits.")
@click.option(
    "--note", "notes", multiple=True, help="A doubt to print, such as where the reference comes from."
)
@click.option("--gate", is_flag=True, help="Exit with 1 if a variant fails its limits.")
def quality(
    variants: tuple[Path, ...],
    reference: Path,
    urls: tuple[str, ...],
    out: Path,
    ctx: int,
    chunks: int,
    all_chunks: bool,
    tasks: tuple[str, ...],
    prompts: int,
    prompt_tokens: int,
    pairs: int | None,
    problems: int,
    own: dict[str, Path],
    threads: int,
    gpu_layers: int,
    cache_dir: Path | None,
    cache_limit_gb: float,
    thresholds: Path | None,
    notes: tuple[str, ...],
    gate: bool,
) -> None:
    """What does each of VARIANTS lose against the reference?

    Measures what OUT does not hold yet, then writes OUT/quality.json and OUT/report.md.
    """
    if not variants and not urls:
        raise click.UsageError("name at least one variant, or a --url")
    _load_llama_first()
    from rllm.errors import RllmError
    from rllm_bench.quality.cache import ReferenceCache, default_folder
    from rllm_bench.quality.datasets import EvaluationData
    from rllm_bench.quality.gate import judge, load_limits
    from rllm_bench.quality.results import Settings
    from rllm_bench.quality.run import measure, write_report
    from rllm_bench.quality.store import QualityStore
    from rllm_bench.quality.words import verdict_in_words

    settings = Settings(
        num_ctx=ctx,
        num_chunks=None if all_chunks else chunks,
        tasks=tasks,
        greedy_prompts=prompts,
        greedy_tokens=prompt_tokens,
        num_pairs=pairs,
        num_problems=problems,
        threads=threads,
        gpu_layers=gpu_layers,
    )
    cache = ReferenceCache(cache_dir or default_folder(), int(cache_limit_gb * 1e9))
    try:
        limits = load_limits(thresholds)
        out.mkdir(parents=True, exist_ok=True)
        run = measure(
            reference, variants, urls, settings, EvaluationData(own), QualityStore(out), cache, notes
        )
        click.echo(write_report(run, limits, out))
        verdicts = {result.model.name: judge(result, limits) for result in run.variants}
    except (RllmError, ValueError, RuntimeError) as exc:
        raise click.ClickException(str(exc)) from exc
    for name, verdict in verdicts.items():
        click.echo(f"{name} {verdict_in_words(verdict)}")
    if gate and not all(verdict.passed for verdict in verdicts.values()):
        raise click.exceptions.Exit(1)


def _load_llama_first() -> None:
    """Start again through ``python -m``, where numpy is already here and this build of llama.cpp minds."""
    try:
        import rllm.backends.llama  # noqa: F401
    except ImportError:
        if "numpy" not in sys.modules:
            raise
        os.execv(sys.executable, [sys.executable, "-m", "rllm_bench.quality", *sys.argv[2:]])
