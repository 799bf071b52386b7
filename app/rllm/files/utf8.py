"""Names of files that are not UTF-8: the system allows them; JSON and llama.cpp's loader do not."""

from __future__ import annotations

from pathlib import Path

from rllm.printable import printable


def fault_of(name: str | Path) -> str | None:
    """One line for who gave the name; None where nothing is wrong with it."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return f"{printable(str(name))}: the name is not UTF-8; rename the file, or make a link to it"
    return None
