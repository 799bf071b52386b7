"""The command ``rllm-serve``. Its options are the fields of `Settings`; nothing is declared twice."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from rllm import __version__, config, config_access
from rllm.config import GROUPS, ConfigError, Settings
from rllm.errors import StartError
from rllm.printable import printable

_EPILOG = """\b
Every option can also be set as RLLM_<OPTION> in the environment (RLLM_CTX_SIZE=8192) or in a TOML file
(ctx_size = 8192). The command line wins over the environment, and that over the file. In the file, a
[[models]] table per model (gguf, alias) may override every option of the groups Model and Engine.

\b
Examples:
  rllm-serve --gguf models/q4.gguf
  rllm-serve --gguf models/q4.gguf --alias small --gguf models/f16.gguf --alias exact --slots 16
  RLLM_API_KEY=... rllm-serve --config /etc/rllm.toml --host 0.0.0.0
  rllm-serve top http://127.0.0.1:8000
"""


class GroupedOption(click.Option):
    """An option that knows under which heading it is shown."""

    group = ""


class ServeCommand(click.Group):
    """Serves, and has commands that look at a server. Shows its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading in (*GROUPS, ""):
            options = [p for p in self.get_params(ctx) if getattr(p, "group", "") == heading]
            rows = [row for option in options if (row := option.get_help_record(ctx))]
            with formatter.section(heading or "Other"):
                formatter.write_dl(rows, col_max=34)
        self.format_commands(ctx, formatter)


def _options() -> list[click.Parameter]:
    return [_option(name, field) for name, field in Settings.model_fields.items() if field.json_schema_extra]


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = "--" + name.replace("_", "-")
    extra = field.json_schema_extra
    kind = _click_type(field.annotation)
    many = get_origin(field.annotation) is tuple
    option = GroupedOption(
        [f"{flag}/--no-{flag[2:]}" if kind is click.BOOL else flag],
        type=kind,
        is_flag=kind is click.BOOL,
        multiple=many,
        help=(field.description or "") + ("" if many or kind is click.BOOL else f"  [{field.default}]"),
    )
    option.group = str(extra["group"]) if isinstance(extra, dict) else ""
    return option


def _click_type(annotation: Any) -> click.ParamType[Any]:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if get_origin(annotation) is tuple:
        return _click_type(get_args(annotation)[0])
    simple: dict[Any, click.ParamType[Any]] = {int: click.INT, float: click.FLOAT, bool: click.BOOL}
    return (
        click.Path(path_type=Path)
        if annotation in (Path, Path | None)
        else simple.get(annotation, click.STRING)
    )


@click.command(
    cls=ServeCommand,
    invoke_without_command=True,
    subcommand_metavar="[top [URL]]",
    params=_options(),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), envvar="RLLM_CONFIG", help="TOML file."
)
@click.option(
    "--print-config", is_flag=True, help="Print the settings that would apply, secrets masked, and end."
)
@click.version_option(__version__, prog_name="rllm-serve")
@click.pass_context
def main(ctx: click.Context, /, config_path: Path | None, print_config: bool, **_values: Any) -> None:
    """Serve GGUF models over the OpenAI API, with many requests decoded in one batch."""
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx)
        return
    settings = _settings(ctx, config_path, need_model=not print_config)
    if print_config:
        click.echo(settings.printable(_known(settings)), nl=False)
        return
    for name in config.unknown_variables(os.environ):
        click.echo(f"rllm-serve: warning: {name} is no setting and has no effect", err=True)
    for name in config_access.empty_variables(os.environ):
        click.echo(f"rllm-serve: warning: {name} is empty and counts as unset", err=True)
    for name in config_access.SECRETS:  # no process that this one starts needs them
        os.environ.pop(name, None)
    # late: --help needs none of it; and llama.cpp before everything else: see `rllm.backends.llama.lib`
    import rllm.backends.llama  # noqa: F401
    from rllm.main import run

    try:
        sys.exit(run(settings))
    except StartError as error:
        click.echo(f"rllm-serve: {_one_line(error)}", err=True)
        sys.exit(1)


@main.command()
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


def _refuse_options_before(ctx: click.Context) -> None:
    """Options of the server mean nothing to a command that only looks at one."""
    given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        name = given[0].replace("_", "-").replace("config-path", "config")
        raise click.UsageError(f"--{name} is for serving; {ctx.invoked_subcommand} has options of its own")


def _known(settings: Settings) -> dict[str, tuple[object, str]]:
    """What is kept about the model on this machine; of several models each has its own, and none is shown."""
    from rllm.startup.profiles import default_folder

    folder = settings.profile_dir or default_folder()
    if len(settings.gguf) != 1 or not any(folder.glob("*.json")):
        return {}
    import rllm.backends.llama  # noqa: F401  before everything else: see `lib`
    from rllm.main import known_options

    try:
        return known_options(settings)
    except StartError:  # of its file: it is said when the file is served
        return {}


def _settings(ctx: click.Context, config_path: Path | None, *, need_model: bool) -> Settings:
    given = {
        name: value
        for name, value in ctx.params.items()
        if name in Settings.model_fields and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    try:
        return config.load(given, config_path, need_model=need_model)
    except ConfigError as error:
        raise click.UsageError(_one_line(error)) from None


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
