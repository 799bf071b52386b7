"""One file over HTTP, continued where an earlier try stopped."""

from __future__ import annotations

import errno
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from rllm.errors import HubError
from rllm.modelhub.files import open_part, remove_part, replace_text, require_space, stamp_of
from rllm.modelhub.progress import Advance, progress

_CHUNK = 1 << 18
_TRIES = 5
_TIMEOUT_S = 30.0
_TRANSIENT = (OSError, http.client.HTTPException)
_LOCAL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ELOOP})
_RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})


def download(url: str, part: Path, *, pause_s: float = 1.0) -> None:
    """Fill ``part`` from ``url``. What is already there is kept if the server says it is the same file.

    A dropped connection is taken up again, with a growing pause, as long as the tries bring bytes.
    """
    failures = 0
    while True:
        size = _size(part)
        try:
            _continue(url, part)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _RETRIED_STATUS:
                raise HubError(f"{url}: the server answered {error.code} {error.reason}") from None
            reason: Exception = error
        except _TRANSIENT as error:
            if isinstance(error, OSError) and error.errno in _LOCAL_ERRNOS:
                raise
            reason = error
        failures = 1 if _size(part) > size else failures + 1
        if failures == _TRIES:
            raise HubError(f"{url}: {_words(reason)} ({_TRIES} tries; run again to continue)")
        time.sleep(pause_s * 2 ** (failures - 1))


def _continue(url: str, part: Path) -> None:
    have = _size(part)
    stamp = stamp_of(part).read_text(encoding="utf-8") if have and stamp_of(part).exists() else ""
    request = urllib.request.Request(
        url, headers={"Accept-Encoding": "identity", "User-Agent": "rllm-models"}
    )
    if have and stamp:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", stamp)
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # The part is as long as the file or longer: the checksum could not have passed. Start over.
        error.close()
        remove_part(part)
        raise ConnectionError("the range was refused") from None
    with answer:
        resumed = answer.status == 206
        if not resumed:
            have = 0
            _remember(part, answer)
        total = _total(answer, have)
        if total is not None:
            require_space(part.parent, total - have)
        with progress(f"fetching {url.rsplit('/', 1)[-1]}", total) as advance:
            done = _append(answer, part, have, advance)
        if total is not None and done != total:
            raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")
    stamp_of(part).unlink(missing_ok=True)


def _append(answer: http.client.HTTPResponse, part: Path, have: int, advance: Advance) -> int:
    with open_part(part, "r+b" if have else "wb") as file:
        file.seek(have)
        while block := answer.read(_CHUNK):
            file.write(block)
            have += len(block)
            advance(have)
    return have


def _total(answer: http.client.HTTPResponse, have: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return have + int(length) if length is not None and length.isdigit() else None


def _remember(part: Path, answer: http.client.HTTPResponse) -> None:
    """Keep what identifies this version of the file; a weak ETag may not be used with If-Range."""
    etag = answer.headers.get("ETag", "")
    stamp = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    replace_text(stamp_of(part), stamp)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _words(reason: Exception) -> str:
    if isinstance(reason, urllib.error.HTTPError):
        return f"the server answered {reason.code} {reason.reason}"
    if isinstance(reason, urllib.error.URLError):
        return str(reason.reason)
    return str(reason) or type(reason).__name__
