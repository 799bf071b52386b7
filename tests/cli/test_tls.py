"""HTTPS with certificates made by openssl: served, renewed on SIGHUP, and refused in one line."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import openai
import pytest

from rllm.errors import StartError
from rllm.startup.tls import Certificate
from tests.cli.server import running

SMALL = ("--slots", "2", "--ctx-size", "512", "--threads", "1")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates")


def make(folder: Path, name: str, *more: str) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-days",
        "2",
    ]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-out", str(certificate), "-keyout", str(key), *(more or ("-nodes",))]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    return certificate, key


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def name_of(port: int, context: ssl.SSLContext) -> str:
    """Of the certificate that a new connection is shown."""

    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            shown = secure.getpeercert() or {}
    return str(dict(pair for (pair,) in shown["subject"])["commonName"])


def test_the_official_client_is_served_over_https(tiny_model: Path, tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "first")
    options = ("--ssl-certfile", certificate, "--ssl-keyfile", key)
    with running("--gguf", tiny_model, *SMALL, *options) as server:
        http = openai.DefaultHttpxClient(verify=trusting(certificate))
        with openai.OpenAI(
            base_url=f"https://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0, http_client=http
        ) as client:
            chunks = list(client.completions.create(model="tiny", prompt="a", max_tokens=8, stream=True))
        assert chunks[-1].choices[0].finish_reason in ("length", "stop")
        assert "curl -N https://127.0.0.1:" in "\n".join(server.lines)


def test_sighup_brings_a_renewed_certificate_and_a_broken_one_changes_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    certificate, key = make(tmp_path, "first")
    options = ("--ssl-certfile", certificate, "--ssl-keyfile", key)
    other, other_key = make(tmp_path, "second")
    trust = trusting(certificate)
    trust.load_verify_locations(str(other))
    with running("--gguf", tiny_model, *SMALL, *options) as server:
        assert name_of(server.port, trust) == "first"
        shutil.copy(other, certificate)  # and not yet its key
        server.signal(signal.SIGHUP)
        server.wait_for("the key is not that of the certificate")
        assert name_of(server.port, trust) == "first"
        shutil.copy(other_key, key)
        server.signal(signal.SIGHUP)
        server.wait_for('"event":"reloaded"')
        assert name_of(server.port, trust) == "second"


def test_who_speaks_no_tls_or_nothing_harms_nobody(tiny_model: Path, tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "first")
    options = ("--ssl-certfile", certificate, "--ssl-keyfile", key)
    with running("--gguf", tiny_model, *SMALL, *options) as server, contextlib.ExitStack() as stack:
        for number in range(20):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            if number % 2:
                silent.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert b"200 OK" not in silent.recv(1000)
        assert name_of(server.port, trusting(certificate)) == "first"
        assert [event for event in server.events() if event["level"] in ("error", "critical")] == []


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "one")
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    Certificate(certificate)


def test_an_encrypted_key_needs_its_password_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "locked", "-passout", "pass:hunter2")
    Certificate(certificate, key, "hunter2")
    for wrong in ("", "hunter3"):
        with pytest.raises(StartError, match="ssl-keyfile-password does not open it"):
            Certificate(certificate, key, wrong)


def test_files_that_are_no_pair_are_named(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "a")
    _, other = make(tmp_path, "b")
    for pair, message in (
        ((tmp_path / "none.pem", key), "none.pem: No such file"),
        ((certificate, tmp_path / "none.key"), "none.key: No such file"),
        ((certificate, other), "the key is not that of the certificate"),
        ((key, key), "is not PEM, or has no certificate or key"),
        ((certificate, certificate), "is not PEM, or has no certificate or key"),
        ((tmp_path, key), "no regular file"),
    ):
        with pytest.raises(StartError, match=message) as caught:
            Certificate(*pair)
        assert "\n" not in str(caught.value)
