"""The keys file: what it may hold, and that it never shows a secret."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rllm.errors import StartError
from rllm.serving.keys import read_keys

DIGEST = hashlib.sha256(b"secret").hexdigest()


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    return path


def test_names_digests_and_limits_are_read(tmp_path: Path) -> None:
    text = f'[[keys]]\nname = "a"\nsha256 = "{DIGEST}"\nrequests_per_min = 5\nconcurrency = 2\npriority = 1\n'
    (entry,) = read_keys(_file(tmp_path, text))
    assert (entry.name, entry.digest) == ("a", bytes.fromhex(DIGEST))
    assert (entry.limits.requests_per_min, entry.limits.tokens_per_min, entry.limits.concurrency) == (5, 0, 2)
    assert DIGEST not in repr(entry)


def test_a_caller_is_no_operator_unless_the_file_says_so(tmp_path: Path) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    text = (
        f'[[keys]]\nname = "a"\nsha256 = "{DIGEST}"\n'
        f'[[keys]]\nname = "b"\nsha256 = "{other}"\noperator = true\n'
    )
    assert [entry.operator for entry in read_keys(_file(tmp_path, text))] == [False, True]


@pytest.mark.parametrize("nothing", [b"", b"\n"])
def test_the_digest_of_an_unset_variable_is_refused(tmp_path: Path, nothing: bytes) -> None:
    digest = hashlib.sha256(nothing).hexdigest()
    with pytest.raises(StartError, match="'a': sha256 is that of an empty key"):
        read_keys(_file(tmp_path, f"[[keys]]\nname = 'a'\nsha256 = '{digest}'"))


def test_two_callers_cannot_have_one_key(tmp_path: Path) -> None:
    text = "".join(f"[[keys]]\nname = '{name}'\nsha256 = '{DIGEST}'\n" for name in "ab")
    with pytest.raises(StartError, match="'a' and 'b' have the same key"):
        read_keys(_file(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keys = 3",
        "other = 1",
        "[[keys]]\nname = 'a'",
        "[[keys]]\nname = 'a'\nsha256 = 'abc'",
        f"[[keys]]\nsha256 = '{DIGEST}'",
        f"[[keys]]\nname = 'a'\nsha256 = '{DIGEST}'\nconcurrency = -1",
        f"[[keys]]\nname = 'a'\nsha256 = '{DIGEST}'\nrequests_per_min = true",
        f"[[keys]]\nname = 'a'\nsha256 = '{DIGEST}'\nreq_per_min = 1",
        f"[[keys]]\nname = 'a'\nsha256 = '{DIGEST}'\noperator = 1",
        f'[[keys]]\nname = "a\\u0007"\nsha256 = "{DIGEST}"',
        f"[[keys]]\nname = 'a'\nsha256 = '{DIGEST}'\n" * 2,
        "[[keys",
    ],
)
def test_a_wrong_file_is_refused_without_showing_a_digest(tmp_path: Path, text: str) -> None:
    with pytest.raises(StartError) as error:
        read_keys(_file(tmp_path, text))
    assert DIGEST not in str(error.value)


def test_the_example_of_the_documentation_is_a_keys_file(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    (block,) = [part for part in page.split("```") if part.startswith("toml\n[[keys]]")]
    entries = read_keys(_file(tmp_path, block.removeprefix("toml\n")))
    assert [(entry.name, entry.operator) for entry in entries] == [("search-team", False), ("on-call", True)]
