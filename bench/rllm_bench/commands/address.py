"""The address of a server on a command line. Imports no numpy: `quality` needs that order."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click


class Address(click.ParamType[str]):
    """Where a server listens: http://HOST:PORT, with or without a path."""

    name = "http://HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(str(value))
            complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is none, half an IPv6 address
            complete = False
        if not complete:
            self.fail(f"{value!r} is no address such as http://127.0.0.1:8000", param, ctx)
        return str(value)
