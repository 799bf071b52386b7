"""The command ``rllm-serve``. Its options are the settings of `rllm.settings`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rllm import __version__
from rllm.errors import StartError
from rllm.printable import printable
from rllm.settings import sources
from rllm.settings.command import options, write_options
from rllm.settings.load import load
from rllm.settings.printing import printable as printed
from rllm.settings.settings import SETTINGS, Settings
from rllm.settings.sources import ConfigError

_EPILOG = """\b
Every option can also be set as RLLM_<OPTION> in the environment (RLLM_CTX_SIZE=8192) or in a TOML file
(ctx_size = 8192). The command line wins over the environment, and that over the file. A file may have a
[[models]] table for each model. docs/configuration.md has all of it.

\b
Examples:
  rllm-serve models/q4.gguf
  rllm-serve models/q4.gguf models/f16.gguf -a small -a exact -np 16
  RLLM_API_KEY=... rllm-serve --config /etc/rllm.toml --host 0.0.0.0
  rllm-serve top http://127.0.0.1:8000
"""


class ServeCommand(click.Command):
    """Serves the models that it is given, or is one of the commands that look at a server: ``top``."""

    commands: Mapping[str, click.Command] = {}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and (command := self.commands.get(args[0])):
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError:
            self._refuse_late_command(given)
            raise
        if self.commands.keys() & set(map(str, ctx.params["files"])):
            self._refuse_late_command(given)
        return rest

    def _refuse_late_command(self, args: list[str]) -> None:
        """Options of the server mean nothing to a command that only looks at one."""
        if name := next((argument for argument in args if argument in self.commands), ""):
            option = args[0].partition("=")[0]
            raise click.UsageError(f"{option} is for serving; {name} has options of its own")

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter, every=bool(ctx.meta.get("every option")))
        with formatter.section("Commands"):
            rows = [(name, command.get_short_help_str(90)) for name, command in self.commands.items()]
            formatter.write_dl(rows)


def _help_all(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        ctx.meta["every option"] = True
        click.echo(ctx.get_help())
        ctx.exit()


@click.command(
    cls=ServeCommand,
    params=options(),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.argument("files", metavar="[MODEL.gguf]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="RLLM_CONFIG",
    help="TOML file with settings.",
)
@click.option(
    "--print-config", is_flag=True, help="Print the settings that would apply, secrets masked, and stop."
)
@click.option(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_help_all,
    help="Show every option and stop. --help shows the common ones.",
)
@click.version_option(__version__, prog_name="rllm-serve")
@click.pass_context
def main(
    ctx: click.Context,
    /,
    files: tuple[Path, ...],
    config_path: Path | None,
    print_config: bool,
    **_values: Any,
) -> None:
    """Serve GGUF models over the OpenAI API, with many requests decoded in one batch."""
    settings = _settings(ctx, files, config_path, need_model=not print_config)
    if print_config:
        click.echo(printed(settings, _known(settings)), nl=False)
        return
    _warn_of_variables()
    for name in sources.secret_variables():  # no process that this one starts needs them
        os.environ.pop(name, None)
    # late: --help needs none of it; and llama.cpp before everything else: see `rllm.backends.llama.lib`
    import rllm.backends.llama  # noqa: F401
    from rllm.main import run

    try:
        sys.exit(run(settings))
    except StartError as error:
        click.echo(f"rllm-serve: {_one_line(error)}", err=True)
        sys.exit(1)


@click.command()
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--api-key", envvar="RLLM_API_KEY", help="Where the server wants one. Also RLLM_API_KEY.")
@click.option("--interval-s", type=click.FloatRange(0.2, 60), default=2.0, show_default=True)
@click.option("--once", is_flag=True, help="Show one frame and end; so it does where no terminal is.")
def top(url: str, api_key: str | None, interval_s: float, once: bool) -> None:
    """Watch a running server in the terminal: slots, queue, latencies, KV cells, faults, GPU."""
    from rich.console import Console

    from rllm.top.run import show_once, watch
    from rllm.top.scrape import ScrapeError, Scraper

    try:
        scraper = Scraper(url, (api_key or "").partition(",")[0])
        console = Console(markup=False)  # names come from the server
        if once or not console.is_terminal:
            show_once(scraper, console)
        else:
            watch(scraper, console, interval_s)
    except ScrapeError as error:
        click.echo(f"rllm-serve top: {_one_line(error)}", err=True)
        sys.exit(1)


ServeCommand.commands = {"top": top}


def _warn_of_variables() -> None:
    for name in sources.unknown_variables(os.environ):
        near = sources.did_you_mean(sources.nearest_variable(name))
        click.echo(f"rllm-serve: warning: {name} is no setting and has no effect{near}", err=True)
    for name in sources.empty_variables(os.environ):
        click.echo(f"rllm-serve: warning: {name} is empty and counts as unset", err=True)


def _known(settings: Settings) -> dict[str, tuple[object, str]]:
    """What is kept about the model on this machine; of several models each has its own, and none is shown."""
    from rllm.startup.profiles import default_folder

    folder = settings.start.profile_dir or default_folder()
    if len(settings.models.gguf) != 1 or not any(folder.glob("*.json")):
        return {}
    import rllm.backends.llama  # noqa: F401  before everything else: see `lib`
    from rllm.startup.plans import known_options

    try:
        return known_options(settings)
    except StartError:  # of its file: it is said when the file is served
        return {}


def _settings(
    ctx: click.Context, files: tuple[Path, ...], config_path: Path | None, *, need_model: bool
) -> Settings:
    given = {
        name: value
        for name, value in ctx.params.items()
        if name in SETTINGS and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    if files:
        given["gguf"] = (*files, *given.get("gguf", ()))
    try:
        return load(given, config_path, need_model=need_model)
    except ConfigError as error:
        raise click.UsageError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
