"""The settings that decide who gets in. A mistake in them must not open a door: an unset variable in a start
script is an error, never "no key"."""

from __future__ import annotations

from collections.abc import Mapping

SECRETS = ("RLLM_API_KEY", "RLLM_SSL_KEYFILE_PASSWORD")
_DECIDE = ("RLLM_API_KEY", "RLLM_KEYS_FILE")


def as_keys(value: object) -> object:
    """One key, or several with commas, as a list; spaces around a key are not part of it, as in a header.

    Raises:
        ValueError: a key is empty, or no header could carry it. Never shows one.
    """
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        return value
    keys = [key.strip() if isinstance(key, str) else key for key in given]
    if "" in keys:
        raise ValueError("a key is empty; was a variable unset?")
    if any(isinstance(key, str) and not key.isprintable() for key in keys):
        raise ValueError("a key has a character that no header can carry")
    return keys


def empty_variables(environ: Mapping[str, str]) -> list[str]:
    """Those of the environment that would decide who gets in, and are set to nothing."""
    return [name for name in _DECIDE if environ.get(name) == ""]
