"""The conditions a client sends as headers: how long an answer may take, and its first token.

``x-request-timeout-ms``  the whole answer is worthless after that; it is then ended, wherever it is
``x-request-ttft-ms``     refuse at once (503) when the first token would probably take longer
"""

from __future__ import annotations

import re
from typing import Any

from starlette.types import Scope

from rllm.errors import BadRequest
from rllm.serving.terms import Terms

_MILLISECONDS = re.compile(rb"[0-9]{1,9}")


def terms_of(scope: Scope, key: str | None, streaming: bool) -> Terms:
    """
    Raises:
        BadRequest: a header is no number of milliseconds.
    """
    return Terms(
        key=key,
        timeout_s=_seconds(scope, "x-request-timeout-ms"),
        ttft_s=_seconds(scope, "x-request-ttft-ms"),
        streaming=streaming,
    )


def _seconds(scope: Scope, name: str) -> float | None:
    raw: Any = name.encode()
    values = [value for header, value in scope["headers"] if header == raw]
    if not values:
        return None
    if len(values) > 1 or not _MILLISECONDS.fullmatch(values[0]) or int(values[0]) == 0:
        raise BadRequest(f"the header {name} must be one whole number of milliseconds from 1 on", param=name)
    return int(values[0]) / 1000
