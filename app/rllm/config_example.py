"""docs/rllm.toml, made from the settings: `python -m rllm.config_example > docs/rllm.toml`."""

from __future__ import annotations

import json
import textwrap

from pydantic.fields import FieldInfo

from rllm.config import GROUPS, Settings

_HEAD = """\
# Every setting of rllm-serve with its default, to be uncommented where another is wanted:
#     rllm-serve --config rllm.toml
# The command line wins over RLLM_* in the environment, and that over this file. Relative paths of models
# count from this file's folder. Made from app/rllm/config.py: python -m rllm.config_example > docs/rllm.toml
"""
_TAIL = """\
# --- Several models -----------------------------------------------------------------------------------------

# Instead of gguf and alias above: a table per model. Every setting of Model and Engine may stand in it.
#[[models]]
#gguf = "models/q4.gguf"
#alias = "small"
#[[models]]
#gguf = "models/f16.gguf"
#alias = "exact"
#slots = 4
"""


def example() -> str:
    parts = [_HEAD]
    for group in GROUPS:
        rule = f"# --- {group} ".ljust(110, "-")
        fields = [(name, field) for name, field in Settings.model_fields.items() if _group(field) == group]
        parts += [f"{rule}\n", *(_setting(name, field) for name, field in fields)]
    return "\n".join([*parts, _TAIL])


def _group(field: FieldInfo) -> object:
    extra = field.json_schema_extra
    return extra.get("group") if isinstance(extra, dict) else None


def _setting(name: str, field: FieldInfo) -> str:
    comment = textwrap.fill(field.description or "", 108, initial_indent="# ", subsequent_indent="# ")
    value = "" if field.default is None else json.dumps(field.default)
    return f"{comment}\n#{name} = {value}\n"


if __name__ == "__main__":
    print(example(), end="")
