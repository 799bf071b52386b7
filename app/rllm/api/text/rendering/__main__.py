"""Entry of a rendering process: one chat template, a stranger's program, where it can do no harm.

Its standard input is a socket to the API process, its only descriptor of use. Its memory is limited, and it
is killed from outside when a template takes too long: by what means a template uses them up does not matter.
It leaves when the socket ends.
"""

from __future__ import annotations

import gc
import math
import resource
import signal
import socket
import sys
import time
from functools import partial

from rllm.api.text.control_text import ControlTexts
from rllm.api.text.rendering.frames import (
    HEAD,
    MOST_SHOWN,
    Answer,
    Discover,
    Discovered,
    Load,
    Loaded,
    Order,
    Problem,
    Render,
    Rendered,
    Started,
    decode_order,
    most_bytes,
    pack,
)
from rllm.api.text.sandbox import TemplateRefused, TemplateTooLong
from rllm.api.text.templates import ChatTemplate
from rllm.errors import BadRequest

MEMORY_BYTES = 512 * 2**20
"""Address space: the interpreter takes 60 MiB, and a prompt of 8 MiB up to ten times its size."""
_LIMITS = {
    resource.RLIMIT_AS: MEMORY_BYTES,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NOFILE: 16,
}
_GRACE_S = 2
_COMPILE_S = 30


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the API process, which ends this one
    for kind, limit in _LIMITS.items():
        resource.setrlimit(kind, (limit, limit))
    link = socket.socket(fileno=sys.stdin.fileno())
    link.sendall(pack(Started()))
    load = _receive(link)
    if not isinstance(load, Load):
        return 0
    template, answer = _load(load)
    link.sendall(pack(answer))
    while template is not None and (order := _receive(link)) is not None:
        if isinstance(order, Render):
            link.sendall(_bounded(_render(template, order), order.max_chars))
        elif isinstance(order, Discover):
            link.sendall(_bounded(_discover(template, order), MOST_SHOWN))
    return 0


def _load(order: Load) -> tuple[ChatTemplate | None, Answer]:
    _limit_time(_COMPILE_S)
    try:
        controls = ControlTexts(order.controls)
        template = ChatTemplate(order.source, controls, bos_text=order.bos_text, eos_text=order.eos_text)
    except Exception as error:  # jinja2 passes on what compiling its Python raises
        return None, Problem(_short(error))
    gc.freeze()
    return template, Loaded()


def _render(template: ChatTemplate, order: Render) -> Answer:
    _limit_time(order.timeout_s)
    try:
        pieces = template.render(
            order.variables,
            without_bos=order.without_bos,
            continues=order.continues,
            max_chars=order.max_chars,
        )
    except TemplateRefused as error:
        return Problem(f"the model's chat template refuses these messages: {_short(error)}")
    except TemplateTooLong as error:
        return Problem(_short(error), is_length=True)
    except BadRequest as error:
        return Problem(_short(error), error.param or "messages")
    except MemoryError:
        return Problem("the model's chat template needs too much memory for these messages")
    except Exception as error:  # whatever Python raises inside a stranger's template
        return Problem(f"the model's chat template fails on these messages: {_short(error)}")
    return Rendered(pieces)


def _discover(template: ChatTemplate, order: Discover) -> Answer:
    from rllm.api.text.formats.discover import discover  # most processes are not asked, and start sooner

    _limit_time(order.timeout_s)
    try:
        return Discovered(discover(partial(template.plain, max_chars=MOST_SHOWN), template.source))
    except Exception as error:  # a stranger's template, and code of ours that reads what it writes
        return Problem(f"its way of writing calls cannot be found: {_short(error)}")


def _bounded(answer: Answer, max_chars: int) -> bytes:
    try:
        frame = pack(answer)
    except (MemoryError, UnicodeEncodeError) as error:  # a template may write half of a surrogate pair
        return pack(Problem(f"the model's chat template makes no prompt of these messages: {_short(error)}"))
    if len(frame) > most_bytes(max_chars):
        reason = "the model's chat template makes too long a prompt of these messages"
        return pack(Problem(reason, is_length=True))
    return frame


def _limit_time(seconds: float) -> None:
    """Of the processor, from now on. Only for the day when nobody is left to kill this process."""
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds) + _GRACE_S, hard))


def _receive(link: socket.socket) -> Order | None:
    """None: the API process is gone."""
    try:
        if not (head := _exactly(link, HEAD)):
            return None
        data = _exactly(link, int.from_bytes(head, "little"))
    except OSError:
        return None
    return decode_order(data) if data else None


def _exactly(link: socket.socket, count: int) -> bytes:
    """Empty where the stream ends first."""
    data = bytearray()
    while len(data) < count:
        if not (got := link.recv(count - len(data))):
            return b""
        data += got
    return bytes(data)


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.encode(errors="replace").decode().split())[:200]


if __name__ == "__main__":
    sys.exit(main())
