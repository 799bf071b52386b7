"""How texts become values: what an environment variable or one option on the command line can hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

Name = Annotated[str, Field(min_length=1, max_length=200)]


def as_list(value: object) -> object:
    """One text is a list of one, or of several with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def as_words(value: object) -> object:
    """The same for values without commas of their own: an option given once may list several, too."""
    if isinstance(value, str):
        return as_list(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return [part.strip() for item in value for part in item.split(",") if part.strip()]
    return value


def as_hosts(value: object) -> object:
    """[::1] as in an address is ::1."""
    hosts = as_list(value)
    if not isinstance(hosts, list | tuple):
        return value
    return [host.removeprefix("[").removesuffix("]") if isinstance(host, str) else host for host in hosts]


def as_keys(value: object) -> object:
    """One key, or several with commas, as a list. Spaces around a key are not part of it, as in a header.

    Raises:
        ValueError: a key is empty, or no header could carry it. The message never shows one.
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


Listed = BeforeValidator(as_list)
Words = BeforeValidator(as_words)
Hosts = BeforeValidator(as_hosts)
Keys = BeforeValidator(as_keys)


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """ "a=b" as a mapping.

    Raises:
        ValueError: a text is not of that form.
    """
    split = [text.partition("=") for text in texts]
    if wrong := [text for text, (a, _, b) in zip(texts, split, strict=True) if not a or not b]:
        raise ValueError(f"{wrong[0]!r} must be MODEL=MODEL")
    return {a: b for a, _, b in split}
