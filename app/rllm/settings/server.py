"""Which models are served, where the server listens, and who may call it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from rllm.settings.option import Option
from rllm.settings.values import Hosts, Keys, Listed, Name, Words


@dataclass(frozen=True, slots=True)
class Models:
    """Which models are served."""

    gguf: Annotated[
        tuple[Path, ...],
        Listed,
        Option(
            "Model file (GGUF), like MODEL.gguf without an option. Repeat it to serve several models.",
            flags=("-m", "--model"),
            unit="FILE",
            common=True,
        ),
    ] = ()
    alias: Annotated[
        tuple[str, ...],
        Listed,
        Option(
            "Name that clients call the model by. Repeat it to give one model several names, or each of "
            "several models one, in order.",
            flags=("-a",),
            unit="NAME",
            default="the file's name",
            common=True,
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server listens."""

    host: Annotated[
        tuple[Name, ...],
        Hosts,
        Option(
            "Address to listen on, like 0.0.0.0 or [::1]. May be repeated.",
            unit="ADDRESS",
            default="127.0.0.1, or none with --uds",
            common=True,
        ),
    ] = ()
    port: Annotated[
        int, Field(ge=0, le=65535), Option("Port to listen on. 0: any free one.", unit="PORT", common=True)
    ] = 8000
    uds: Annotated[
        Path | None,
        Option("Unix socket to listen on. Whoever may write to the file may connect.", unit="FILE"),
    ] = None


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call the server."""

    api_key: Annotated[
        tuple[SecretStr, ...],
        Keys,
        Option(
            "Key that clients must send. May be repeated. Set RLLM_API_KEY instead to keep it out of `ps`.",
            unit="KEY",
            default="no key is needed",
            common=True,
        ),
    ] = ()
    keys_file: Annotated[
        Path | None,
        Option(
            "TOML file with named keys, stored as digests, and the limits of each. SIGHUP reads it again.",
            unit="FILE",
            common=True,
        ),
    ] = None
    allow_insecure: Annotated[bool, Option("Let other machines connect although there is no API key.")] = (
        False
    )
    allowed_hosts: Annotated[
        tuple[str, ...],
        Words,
        Option(
            "Name in a request's Host header that is accepted, like example.org or *.example.org; * accepts "
            "all. May be repeated. Addresses and localhost are always accepted.",
            unit="NAME",
            default="no other name if only this machine can connect and no key is needed, else all",
        ),
    ] = ()
    share_prefixes: Annotated[
        bool,
        Option("Reuse computed prompts across API keys. A caller can then measure what others have asked."),
    ] = False


@dataclass(frozen=True, slots=True)
class Tls:
    """HTTPS."""

    certfile: Annotated[
        Path | None,
        Option(
            "Serve HTTPS with this certificate chain (PEM).",
            name="ssl_certfile",
            flags=("--ssl-cert-file",),
            unit="FILE",
            common=True,
        ),
    ] = None
    keyfile: Annotated[
        Path | None,
        Option(
            "Private key of the certificate (PEM).",
            name="ssl_keyfile",
            flags=("--ssl-key-file",),
            unit="FILE",
            default="in the certificate's file",
            common=True,
        ),
    ] = None
    keyfile_password: Annotated[
        SecretStr | None, Option("Password of the private key.", name="ssl_keyfile_password", unit="PASSWORD")
    ] = None


@dataclass(frozen=True, slots=True)
class Http:
    """What requests may ask for, and how their bodies and answers travel."""

    any_model_name: Annotated[
        bool, Option("Answer requests for any model name, if only one model is served.")
    ] = False
    cors_origins: Annotated[
        tuple[str, ...],
        Words,
        Option(
            "Origin of web pages that may call the server, like https://example.org. localhost: any of this "
            "machine; *: all. May be repeated.",
            name="cors_origin",
            unit="ORIGIN",
            default="none",
        ),
    ] = ()
    """Empty: no CORS headers at all. ("*",) allows every page to call the server."""
    trust_request_chat_template: Annotated[
        bool,
        Option("Let requests bring a chat template. A template is a program; each one runs as a process."),
    ] = False
    docs: Annotated[bool, Option("Serve /docs and /openapi.json.")] = True
    open_metrics: Annotated[bool, Option("Serve /metrics without an API key.")] = False
    max_connections: Annotated[
        int,
        Field(ge=0),
        Option(
            "Most connections at a time. A further one closes the connection that was idle longest.",
            unit="N",
            default="what the limit of open files allows",
        ),
    ] = 0
    max_body_bytes: Annotated[
        int,
        Field(ge=1024),
        Option("Largest request body. 2 MiB hold the text of about 400,000 tokens.", unit="BYTES"),
    ] = 2 * 2**20
    body_timeout_s: Annotated[
        float, Field(gt=0), Option("Longest time that a client may take to send a body.", unit="SECONDS")
    ] = 30.0
    slow_client_timeout_s: Annotated[
        float,
        Field(ge=0),
        Option("End a request when its client has read nothing for this long. 0: never.", unit="SECONDS"),
    ] = 30.0
    keepalive_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Send a comment after this long without a token, so that no proxy closes the stream. 0: never.",
            unit="SECONDS",
        ),
    ] = 15.0
    """It is also how long the status line waits for the first token: an error within that time is an HTTP
    error, later it is an event. 0: wait for ever."""
