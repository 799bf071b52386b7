"""HTTP to the servers of a measurement, never through a proxy."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse
from typing import cast

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""``http_proxy`` and its kin are for the internet. A proxy between us and the server would be measured, or
answer in its place; the load generator does not heed them either."""


def open_url(request: str | urllib.request.Request, timeout_s: float) -> HTTPResponse:
    """
    Raises:
        urllib.error.HTTPError: the status is 400 or above.
        OSError: it was not reached, or not in time.
    """
    return cast(HTTPResponse, _DIRECT.open(request, timeout=timeout_s))
