"""The sockets that the server listens on: taken before anything is loaded, so a busy port is found first."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllm.errors import StartError

_SEND_BUFFER = 128 * 1024
"""Of every connection. The kernel's own choice grows to megabytes, and until they are full a client that does
not read goes unnoticed."""


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    uds: str = ""
    """Path of a Unix socket, through which ``url`` is reached."""

    def __str__(self) -> str:
        return f"{self.url} (socket {self.uds})" if self.uds else self.url

    @property
    def for_curl(self) -> str:
        return f"--unix-socket {shlex.quote(self.uds)} {self.url}" if self.uds else self.url


@contextlib.contextmanager
def listening(hosts: Sequence[str], port: int, uds: Path | None = None) -> Iterator[list[socket.socket]]:
    """Listen on each of ``hosts`` and on a Unix socket. With port 0 all take the port that the first one got.

    Raises:
        StartError: one of them cannot be had.
    """
    with contextlib.ExitStack() as stack:
        listeners: list[socket.socket] = []
        for host in hosts:
            listener = stack.enter_context(_tcp(host, port, shared=len(hosts) > 1))
            port = listener.getsockname()[1]
            listeners.append(listener)
        if uds is not None:
            listeners.append(stack.enter_context(_unix(uds)))
            stack.callback(uds.unlink, missing_ok=True)
        yield listeners


def address_of(listener: socket.socket, *, tls: bool = False) -> Address:
    scheme = "https" if tls else "http"
    if listener.family == socket.AF_UNIX:
        return Address(f"{scheme}://localhost", str(listener.getsockname()))
    host, port = listener.getsockname()[:2]
    return Address(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")


def _tcp(host: str, port: int, *, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except UnicodeError:
        raise StartError(f"--host {host!r}: no name of a host") from None
    except OSError as error:
        raise StartError(f"--host {host}: {error.strerror}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if family == socket.AF_INET6 and shared:  # "::" alone takes IPv4, too; beside 0.0.0.0 it may not
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"port {port} on {host} is in use; choose another with --port") from None
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def _unix(path: Path) -> socket.socket:
    """Whoever may write to the file may connect: the umask decides, by default its owner alone."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = error.strerror or error  # a path that is too long has no errno
        raise StartError(f"--uds {path}: {reason}") from None
    return listener


def _clear(path: Path) -> None:
    """Remove the socket of a server that is gone. Nothing else is touched."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartError(f"--uds {path}: there is a file of that name, and it is no socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"--uds {path}: {error.strerror}") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StartError(f"--uds {path}: {error.strerror}") from None
        else:
            raise StartError(f"--uds {path}: another server listens there")
