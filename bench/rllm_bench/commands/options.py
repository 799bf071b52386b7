"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rllm_bench.commands.address import Address
from rllm_bench.records import archive
from rllm_bench.targets.catalog import Places

Decorated = Callable[..., Any]


class Numbers(click.ParamType[list[float]]):
    """Comma-separated numbers."""

    name = "N,N,…"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        if isinstance(value, list):
            return value
        try:
            return [self._kind(part) for part in str(value).split(",") if part.strip()]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,4,8", param, ctx)


class Names(click.ParamType[list[str]]):
    """Comma-separated names."""

    name = "NAME,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return (
            value
            if isinstance(value, list)
            else [part.strip() for part in str(value).split(",") if part.strip()]
        )


class Recorded(click.ParamType[Path]):
    """A folder that holds ``file``, also inside of a report's records.tar.zst."""

    name = "FOLDER"

    def __init__(self, file: str, command: str) -> None:
        self._file, self._command = file, command

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        folder = Path(value)
        if not archive.exists(folder / self._file):
            self.fail(f"{folder} holds no {self._file}: not a run of {self._command}", param, ctx)
        return folder


RUN = Recorded("run.json", "rllm-bench matrix")
QUALITY = Recorded("quality.json", "rllm-bench quality")


ROOT = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    show_default="the current folder",
    help="The checkout, with docs/figures.toml and reports/.",
)


def place_options(command: Decorated) -> Decorated:
    for option in reversed(
        [
            click.option(
                "--models",
                type=click.Path(path_type=Path),
                default=Path("models"),
                help="Folder of the GGUF files.",
            ),
            click.option(
                "--hf-model",
                type=click.Path(path_type=Path),
                help="Hugging Face folder for vLLM.  [default: models/hf]",
            ),
            click.option(
                "--vllm-python",
                default="python3",
                help="Interpreter of the environment vLLM is installed in.",
            ),
            click.option(
                "--llama-server",
                help="Path of the llama-server binary.  [default: on the PATH, else xllamacpp]",
            ),
            click.option(
                "--url", type=Address(), help="A running OpenAI-compatible server; becomes the target `url`."
            ),
            click.option("--url-model", default="", help="Its model name.  [default: the first it lists]"),
            click.option(
                "--url-format",
                type=click.Choice(["ids", "text", "chat"]),
                default="ids",
                help="How it is prompted.",
            ),
            click.option(
                "--at",
                multiple=True,
                metavar="SUBJECT=URL",
                help="Where a subject is served already, as vllm/f16=http://127.0.0.1:8001.",
            ),
            click.option("--url-api-key", envvar="RLLM_BENCH_API_KEY", help="Its key; sent, never recorded."),
        ]
    ):
        command = option(command)
    return command


def take_places(options: dict[str, Any]) -> Places:
    """Removes the options of `place_options` from ``options``."""
    running = {}
    for text in options.pop("at"):
        subject, separator, url = text.rpartition("=")
        if not separator:
            raise click.BadParameter(f"{text!r}: expected SUBJECT=URL", param_hint="--at")
        running[subject] = Address().convert(url, None, None)
    names = [name for name in Places.__struct_fields__ if name != "at"]
    return Places(at=running, **{name: options.pop(name) for name in names})


def parse_slos(texts: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """``[name=]ttft:500,tpot:30`` in ms; vLLM's names ttft, tpot, e2el."""
    slos: dict[str, dict[str, float]] = {}
    for number, text in enumerate(texts, 1):
        name, _, goal = text.rpartition("=")
        limits: dict[str, float] = {}
        for part in goal.replace(" ", ",").split(","):
            key, _, limit = part.partition(":")
            if key not in ("ttft", "tpot", "e2el"):
                raise click.BadParameter(
                    f"{part!r}: expected ttft:MS, tpot:MS or e2el:MS", param_hint="--goodput"
                )
            try:
                limits[key] = float(limit)
            except ValueError:
                raise click.BadParameter(
                    f"{part!r}: {limit!r} is no number of ms", param_hint="--goodput"
                ) from None
        slos[name or f"slo{number}"] = limits
    return slos
