"""The server's certificate, from files that may be renewed while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path

from rllm.errors import StartError


class Certificate:
    """``context`` is for the listening sockets; connections that come after `load` get what it loaded."""

    def __init__(self, certfile: Path, keyfile: Path | None = None, password: str = "") -> None:
        """
        Args:
            certfile: the chain as PEM, the server's own certificate first.
            keyfile: the private key as PEM. None: it is in ``certfile``.

        Raises:
            StartError: see `load`.
        """
        self._certfile, self._keyfile, self._password = certfile, keyfile or certfile, password
        self.context = _new_context()
        self.load()

    def load(self) -> None:
        """
        Raises:
            StartError: the files cannot be used; those of before still are.
        """
        self._load_into(_new_context())  # a context into which loading failed has one half of the new pair
        self._load_into(self.context)

    def _load_into(self, context: ssl.SSLContext) -> None:
        for path in (self._certfile, self._keyfile):
            _check_readable(path)
        try:
            # a callable, so that OpenSSL never asks at the terminal
            context.load_cert_chain(self._certfile, self._keyfile, lambda: self._password)
        except (ssl.SSLError, OSError, ValueError) as error:
            pair = f"--ssl-certfile {self._certfile} with --ssl-keyfile {self._keyfile}"
            raise StartError(f"{pair}: {self._explain(error)}") from None

    def _explain(self, error: Exception) -> str:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        if b"ENCRYPTED" in self._keyfile.read_bytes():  # OpenSSL's reason is the same as for what is no PEM
            return "the key is encrypted and --ssl-keyfile-password does not open it"
        return "one of them is not PEM, or has no certificate or key in it"


def _check_readable(path: Path) -> None:
    try:
        if not path.is_file() and path.exists():
            raise StartError(f"{path}: no regular file")
        path.open("rb").close()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
