"""Which web pages may call the server from a browser: ``--cors-origin``.

A page of an allowed origin may send any header (the official client names a dozen of its own) and read any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LOCALHOST = "localhost"
"""As an origin: every page that this machine serves to itself, whatever its port."""
_LOCAL = r"https?://(localhost|[a-z0-9.-]+\.localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"


def cors_options(origins: Iterable[str]) -> dict[str, Any]:
    """Arguments of Starlette's CORSMiddleware."""
    given = [origin.rstrip("/").lower() for origin in origins]  # a browser's origin has no path
    return {
        "allow_origins": [origin for origin in given if origin != LOCALHOST],
        "allow_origin_regex": _LOCAL if LOCALHOST in given else None,
        "allow_methods": ["*"],
        "allow_headers": ["*"],
        "expose_headers": ["*"],
        "allow_credentials": "*" not in given,  # some clients always send cookies, which a proxy may ask for
        "allow_private_network": True,  # or Chrome lets no public page call a server at home
    }
