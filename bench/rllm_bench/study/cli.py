"""`scripts/gpu-study`: the commands."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from rllm_bench.records import environment
from rllm_bench.study import vllm
from rllm_bench.study.pace import Pace
from rllm_bench.study.pieces import FLAVOURS, PIECES, Piece
from rllm_bench.study.run import Study, cells, estimate_s
from rllm_bench.study.subjects import Places, vllm_label

_NAMES = [piece.name for piece in PIECES]
T = TypeVar("T")
_VARIANTS = ("q4_k_m", "q8_0", "f16")


def _work(path: Path | None) -> Path:
    if path is not None:
        return path
    return Path(os.environ["W"], "study") if "W" in os.environ else Path(".cache/gpu-study")


work_option = click.option(
    "--work",
    type=click.Path(path_type=Path),
    help="Folder that keeps the records between calls.  [default: $W/study, else .cache/gpu-study]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """The GPU study, in pieces of at most ten minutes, on a machine without a network.

    \b
    What is done stays done: run it again and it goes on. All records so far are packed into
    OUT/gpu-study.tar.gz after every piece; unpack them elsewhere and render with `rllm-bench report`.

    \b
      source .gpu/setup.sh
      scripts/gpu-study vllm start                 # returns at once; ready after two minutes
      shape_models Q4_K_M Q8_0
      scripts/gpu-study hash &                     # optional: hashes of the models for the records
      scripts/gpu-study run --out $OUT --budget-s 400
    """


@main.command("list")
def show() -> None:
    """The pieces, most important first, with a rough time of each."""
    pace = Pace()
    for piece in PIECES:
        click.echo(f"{piece.name:12} {_seconds(piece, pace):4.0f} s  {piece.what}")
        click.echo(f"{'':12}         {', '.join(piece.subjects)}; {piece.slots} slots of {piece.ctx}")


def _seconds(piece: Piece, pace: Pace, repeats: int | None = None) -> float:
    from rllm_bench.records.runs import Subject

    known = [
        Subject(name=name.replace(":", "/"), engine=name.partition(":")[0], variant=name.partition(":")[2])
        for name in piece.subjects
    ]
    return estimate_s(piece, cells(piece, known, repeats or piece.repeats, 1), pace)


@main.command("hash")
@work_option
@click.option("--models", type=click.Path(path_type=Path, exists=True))
def hash_models(work: Path | None, models: Path | None) -> None:
    """Hash the model files for the records. Reads all of them: not while something is measured."""
    folder, found = _models(models), {}
    for name in _VARIANTS:
        if (path := folder / f"{name}.gguf").exists():
            found[path.name] = environment.sha256(path)
    (place := _work(work)).mkdir(parents=True, exist_ok=True)
    (place / "hashes.json").write_bytes(msgspec.json.encode(found))


@main.command("vllm")
@click.argument("action", type=click.Choice(["start", "stop", "wait"]))
@work_option
@click.option("--command", "template", help="Command with {port} and {share}.  [default: $W/vllm/site's]")
@click.option("--share", default=0.36, show_default=True, help="Of the card's memory, for {share}.")
@click.option(
    "--flavour",
    "flavours",
    multiple=True,
    type=click.Choice([name for name, flavour in FLAVOURS.items() if "vllm" in flavour.options]),
    help="Other settings, as pieces name them. Several vLLMs may run beside each other.",
)
@click.option(
    "--kv-gib", type=float, help="Size of its cache: instead of measuring what is free, for several at once."
)
def vllm_command(
    action: str,
    work: Path | None,
    template: str | None,
    share: float,
    flavours: tuple[str, ...],
    kv_gib: float | None,
) -> None:
    """Start vLLM in a session of its own that outlives this call, wait for all that run, or stop them."""
    place = _work(work)
    if action == "stop":
        vllm.stop(place)
        return
    if action == "start":
        known = (template, {}) if template else vllm.default_command(os.environ)
        if known is None:
            raise click.ClickException("no $W/vllm/site here: give --command")
        options = [word for name in flavours for word in FLAVOURS[name].options["vllm"]]
        if kv_gib is not None:
            options += ["--kv-cache-memory-bytes", str(int(kv_gib * 2**30))]
        running = vllm.start(place, known[0], known[1], share, vllm_label(flavours), options)
        click.echo(f"vLLM starts at {running.url} (process {running.pid}): {' '.join(running.command)}")
        return
    if not (known_ones := vllm.find_all(place)):
        raise click.ClickException(
            "no vLLM was started here, or it has ended; see vllm.log in the work folder"
        )
    for label, found in known_ones.items():
        if (reason := found.wait_ready(found.started_at + vllm.PATIENCE_S)) is not None:
            raise click.ClickException(reason)
        click.echo(f"vLLM{label} is ready, {time.time() - found.started_at:.0f} s after its start")


@main.command("run")
@work_option
@click.option(
    "--piece", "names", multiple=True, type=click.Choice(_NAMES), help="May be repeated.  [default: all]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    envvar="OUT",
    help="Where gpu-study.tar.gz goes.  [default: $OUT, else the work folder's parent]",
)
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    help="Folder of q4_k_m.gguf, q8_0.gguf, f16.gguf.  [default: $W/m]",
)
@click.option("--llama-server", help="Path of the binary.  [default: $W/bin/llama-server, else on the PATH]")
@click.option(
    "--peer",
    multiple=True,
    type=click.Choice([name for name, flavour in FLAVOURS.items() if "llama-server" in flavour.options]),
    help="Given to a llama-server that a piece takes as it comes: nocache, say. The summary does not tell.",
)
@click.option("--vllm-url", help="A vLLM that somebody else started.")
@click.option(
    "--without", multiple=True, help="Engine that is not measured this time, e.g. vllm; may be repeated."
)
@click.option("--budget-s", default=540.0, show_default=True, help="Begin nothing that would last longer.")
@click.option("--repeats", type=click.IntRange(min=1), help="Instead of each piece's own.")
@click.option("--seed", default=1, show_default=True)
@click.option("--commit", help="Of the code, where there is no git to ask.")
@click.option("--no-preload", is_flag=True, help="Start rllm without LD_PRELOAD=$LLAMA_PRELOAD.")
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and how long it may take.")
def run(
    work: Path | None,
    names: tuple[str, ...],
    out: Path | None,
    models: Path | None,
    llama_server: str | None,
    peer: tuple[str, ...],
    vllm_url: str | None,
    without: tuple[str, ...],
    budget_s: float,
    repeats: int | None,
    seed: int,
    commit: str | None,
    no_preload: bool,
    dry_run: bool,
) -> None:
    """Measure pieces, in the order given, until they are done or the budget is spent."""
    deadline = time.monotonic() + budget_s
    chosen = [piece for name in names for piece in PIECES if piece.name == name] or list(PIECES)
    if dry_run:
        _dry_run(chosen, budget_s, repeats)
        return
    place = _work(work)
    place.mkdir(parents=True, exist_ok=True)
    preload = None if no_preload else os.environ.get("LLAMA_PRELOAD")
    study = Study(
        work=place,
        out=out or place.parent,
        places=Places(
            models=_models(models),
            llama_server=llama_server or _llama_server(),
            rllm_env={"LD_PRELOAD": preload} if preload else {},
            vllm={} if "vllm" in without else _vllms(place, vllm_url, chosen),
        ),
        deadline=deadline,
        seed=seed,
        repeats=repeats,
        commit=commit,
        without=without,
        peer=peer,
        hashes=_read(place / "hashes.json", dict[str, str], {}),
    )
    study.run(chosen)


@main.command("summary")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="[default: standard output]")
def summary_command(folder: Path, out: Path | None) -> None:
    """One page out of the unpacked records: goals, figures, memory."""
    from rllm_bench.study.summary import page

    text = page(folder)
    if out is None:
        click.echo(text)
    else:
        out.write_text(text)


def _vllms(work: Path, url: str | None, chosen: list[Piece]) -> dict[str, vllm.Running]:
    """Those to ask, once they answer; where there is none, the reason is printed."""
    if not any(name.startswith("vllm") for piece in chosen for name in piece.subjects):
        return {}
    found = vllm.find_all(work)
    if url:
        found[""] = vllm.Running(url.rstrip("/"), started_at=time.time())
    if not found:
        click.echo("no vLLM: `vllm start` was not called here, or it has ended (--vllm-url names another)")
    ready = {}
    for label, running in found.items():
        began = time.monotonic()
        if (reason := running.wait_ready(running.started_at + vllm.PATIENCE_S)) is not None:
            click.echo(f"goes on without vLLM{label}: {reason}")
            continue
        click.echo(f"vLLM{label} {running.version()} is ready (waited {time.monotonic() - began:.0f} s)")
        ready[label] = running
    return ready


def _dry_run(chosen: list[Piece], budget_s: float, repeats: int | None) -> None:
    pace, left = Pace(), budget_s
    for piece in chosen:
        needed = _seconds(piece, pace, repeats)
        left -= needed
        fits = "" if left >= 0 else "  does not fit into the budget as a whole"
        click.echo(f"{piece.name:12} {needed:4.0f} s, {max(0.0, left):4.0f} s left after it{fits}")


def _models(given: Path | None) -> Path:
    return given or (Path(os.environ["W"], "m") if "W" in os.environ else Path("models"))


def _llama_server() -> str | None:
    beside = Path(os.environ.get("W", "/nowhere"), "bin", "llama-server")
    return str(beside) if beside.exists() else shutil.which("llama-server")


def _read(path: Path, kind: type[T], default: T) -> T:
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else default
