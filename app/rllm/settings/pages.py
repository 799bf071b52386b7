"""What the documentation says about the settings: `python -m rllm.settings.pages` writes both pages anew.

docs/rllm.toml is a file with every default; docs/configuration.md has a table of them between two marks.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from rllm.settings.model import Subject
from rllm.settings.option import Setting
from rllm.settings.printing import IN_FILE, key_of, toml
from rllm.settings.settings import SUBJECTS

_DOCS = Path(__file__).parents[3] / "docs"
_BEGIN, _END = "<!-- settings: python -m rllm.settings.pages -->", "<!-- /settings -->"
_HEAD = """\
# Every setting of rllm-serve with its default, to be uncommented where another is wanted:
#     rllm-serve --config rllm.toml
# The command line wins over RLLM_* in the environment, and that over this file. Relative paths of models
# count from this file's folder. Made from app/rllm/settings: python -m rllm.settings.pages
"""
_TAIL = """\
# --- Several models -----------------------------------------------------------------------------------------

# Instead of gguf and alias above: a table per model. The settings of Engine may stand in it, and tables like
# [models.cache], [models.prefix_store], [models.sampling] and [models.tuning].
#[[models]]
#gguf = "models/q4.gguf"
#alias = "small"
#[[models]]
#gguf = "models/f16.gguf"
#alias = "exact"
#slots = 4
"""


def example_file() -> str:
    parts = [_HEAD]
    for part in IN_FILE:
        parts.append(f"# --- {part.heading} ".ljust(110, "-") + "\n")
        parts += [f"[{part.table}]\n"] if part.table else []
        parts += map(_example, part.settings)
    return "\n".join([*parts, _TAIL])


def _example(setting: Setting) -> str:
    comment = textwrap.fill(_text(setting), 108, initial_indent="# ", subsequent_indent="# ")
    value = "" if setting.default is None else toml(setting.default)
    return f"{comment}\n#{key_of(setting)} = {value}\n"


def _text(setting: Setting) -> str:
    default = setting.option.default
    return setting.option.text + (f" Default: {default}." if default else "")


def with_table(page: str) -> str:
    """The page with the table of all settings as they are now.

    Raises:
        ValueError: it has no place for it.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"no {_BEGIN} ... {_END}")
    return f"{before}{_BEGIN}\n\n{table()}\n{_END}{after}"


def table() -> str:
    return "\n".join(map(_section, SUBJECTS))


def _section(part: Subject) -> str:
    where = f"In a file: table `[{part.table}]`." if part.table else "In a file: above all tables."
    head = [f"### {part.heading}", "", f"{part.struct.__doc__} {where}", ""]
    return (
        "\n".join([*head, "| option | key | default | |", "|---|---|---|---|", *map(_row, part.settings)])
        + "\n"
    )


def _row(setting: Setting) -> str:
    names = ", ".join(f"`{flag}`" for flag in (*setting.option.flags, setting.flag))
    text = setting.option.text.replace("|", "\\|").replace("*", "\\*")
    return f"| {names} | `{key_of(setting)}` | {_default(setting)} | {text} |"


def _default(setting: Setting) -> str:
    if setting.option.default:
        return setting.option.default
    return f"`{setting.default_text}`" if setting.default_text else ""


if __name__ == "__main__":
    (_DOCS / "rllm.toml").write_text(example_file())
    page = _DOCS / "configuration.md"
    page.write_text(with_table(page.read_text()))
