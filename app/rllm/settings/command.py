"""The settings as options of a command line: one click option each, under the heading of its subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rllm.settings.option import Setting
from rllm.settings.settings import SUBJECTS

_HEADINGS, _OTHER = [part.heading for part in SUBJECTS], "Other"
_WIDTH = 34
_KINDS: dict[Any, click.ParamType[Any]] = {
    int: click.INT,
    float: click.FLOAT,
    bool: click.BOOL,
    Path: click.Path(path_type=Path),
}


class SettingOption(click.Option):
    """An option that knows its setting and under which heading it is shown."""

    def __init__(self, setting: Setting, heading: str) -> None:
        is_flag = setting.kind is bool
        flag = f"{setting.flag}/--no-{setting.flag[2:]}" if is_flag else setting.flag
        super().__init__(
            [setting.name, *setting.option.flags, flag],
            type=click.Choice(setting.choices) if setting.choices else _KINDS.get(setting.kind, click.STRING),
            is_flag=is_flag,
            multiple=setting.may_repeat,
            metavar=setting.option.unit or None,
            help=setting.option.text + (f" [{setting.default_text}]" if setting.default_text else ""),
        )
        self.heading = heading
        self.is_common = setting.option.common


def options() -> list[click.Parameter]:
    return [SettingOption(setting, part.heading) for part in SUBJECTS for setting in part.settings]


def write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, *, every: bool
) -> None:
    """Under their headings: those that are common, or ``every`` one."""
    rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*_HEADINGS, _OTHER)}
    for option in command.get_params(ctx):
        if isinstance(option, click.Argument):
            continue
        heading, is_shown = _OTHER, True
        if isinstance(option, SettingOption):
            heading, is_shown = option.heading, option.is_common or every
        if is_shown and (row := option.get_help_record(ctx)):
            rows[heading].append((row[0].ljust(_WIDTH), row[1]))
    for heading, shown in rows.items():
        if shown:
            with formatter.section(heading):
                formatter.write_dl(shown, col_max=_WIDTH)
