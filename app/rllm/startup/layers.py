"""What the layers are told of the operator's settings, and the keys file, which may change meanwhile."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from rllm.api.settings import ApiKey, ApiSettings
from rllm.serving.keys import KeyEntry, read_keys
from rllm.serving.limits import KeyLimits
from rllm.serving.pool import PoolSettings
from rllm.settings.settings import Settings
from rllm.startup.tls import Certificate


class KeyFile:
    """The keys of one file, or none without a file."""

    def __init__(self, path: Path | None) -> None:
        """
        Raises:
            StartError: the file is wrong.
        """
        self._path = path
        self.entries: tuple[KeyEntry, ...] = ()
        self.reload()

    @property
    def limits(self) -> dict[str, KeyLimits]:
        return {entry.name: entry.limits for entry in self.entries}

    def reload(self) -> None:
        """
        Raises:
            StartError: the file is wrong; the keys stay as they were.
        """
        if self._path is not None:
            self.entries = read_keys(self._path)


def pool_settings(settings: Settings, keys: dict[str, KeyLimits]) -> PoolSettings:
    return PoolSettings(
        limits=settings.limits,
        timeouts=settings.timeouts,
        instance=settings.workers,
        degrade=settings.degrade,
        keys=keys,
        share_prefixes=settings.access.share_prefixes,
        require_all=settings.start.require_all,
    )


def api_settings(settings: Settings) -> ApiSettings:
    keys = (
        ApiKey.from_secret(f"key-{number}", key.get_secret_value())
        for number, key in enumerate(settings.access.api_key, start=1)
    )
    http = {item.name: getattr(settings.http, item.name) for item in fields(settings.http)}
    return ApiSettings(**http, api_keys=tuple(keys), allowed_hosts=allowed_hosts(settings))


def allowed_hosts(settings: Settings) -> tuple[str, ...] | None:
    """None: every name. Where a key is needed, a page that reaches the server under its own name has none.
    No page reaches a Unix socket."""
    access = settings.access
    if access.allowed_hosts:
        return access.allowed_hosts
    has_keys = bool(access.api_key or access.keys_file)
    return () if settings.listening_hosts and settings.is_loopback and not has_keys else None


def certificate(settings: Settings) -> Certificate | None:
    tls = settings.tls
    if tls.certfile is None:
        return None
    password = tls.keyfile_password
    return Certificate(tls.certfile, tls.keyfile, password.get_secret_value() if password else "")
