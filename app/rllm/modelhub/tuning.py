"""`rllm-models tune`: the race with its progress, its table, and where its outcome went."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tabulate import tabulate

from rllm.backends.options import LlamaOptions
from rllm.errors import HubError
from rllm.files.gguf_info import read_gguf
from rllm.observe.gpu import Gpus
from rllm.startup.plans import profile_store
from rllm.tuning.points import Use
from rllm.tuning.session import Busy, How, tune_and_keep


def run(file: Path, use: Use, how: How, folder: Path | None) -> None:
    """
    Raises:
        HubError: it cannot be tuned here and now.
    """
    read_gguf(file)
    store = profile_store(folder, Gpus())
    on_terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        if on_terminal:
            click.echo(f"\r\033[K{text}", nl=False, err=True)

    try:
        result = tune_and_keep(store, file, LlamaOptions(), use, how, say)
    except Busy as error:
        raise HubError(f"{file}: {error}") from None
    say("")
    if result.table:
        click.echo("Tokens a second, medians:\n")
        click.echo(tabulate(result.table, result.columns, "pipe", disable_numparse=True))
    outcome = result.outcome
    if outcome.note:
        click.echo(f"\nEnded early: {outcome.note}.")
    if not result.outcome.rounds:
        click.echo("Nothing was decided; the rule of thumb holds.")
        return
    click.echo(
        f"\nFor {use}, in {outcome.rounds} rounds and {outcome.seconds:.0f} s: {outcome.winner}.\n"
        f"Kept in {store.path(file)}."
    )
