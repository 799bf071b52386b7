"""The locks: every package at one version, with hashes, and none of pyproject.toml left out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER, SETUP, DEV, BUILD = (f"requirements{name}.lock" for name in ("-server", "", "-dev", "-build"))
_ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)(?:\[[a-z,]+\])?==(?P<version>\S+)(?: ;[^\\]*)? \\$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def versions(file: str) -> dict[str, str]:
    text = (ROOT / file).read_text()
    found = {match["name"]: match["version"] for match in _ENTRY.finditer(text)}
    lines = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(lines) == len(found), "an entry has no version, no hash, or two versions"
    return found


def wanted(requirements: list[str]) -> set[str]:
    names = (_NAME.match(requirement) for requirement in requirements)
    return {re.sub("[._]", "-", name[0].lower()) for name in names if name}


@pytest.mark.parametrize("file", [SERVER, SETUP, DEV, BUILD])
def test_every_entry_has_one_version_and_hashes(file: str) -> None:
    assert versions(file)
    entries = (ROOT / file).read_text().split("\n")
    for number, line in enumerate(entries):
        if line and line[0] not in "# ":
            assert entries[number + 1].startswith("    --hash=sha256:"), line


def test_what_pyproject_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    needed = wanted(project["project"]["dependencies"])
    assert needed <= versions(SERVER).keys(), "scripts/lock --keep"
    assert needed | wanted(extras["bench"]) <= versions(SETUP).keys(), "scripts/lock --keep"
    assert needed | wanted(extras["bench"] + extras["dev"] + extras["hf"]) <= versions(DEV).keys(), (
        "scripts/lock --keep"
    )
    assert not wanted(extras["bench"]) & versions(SERVER).keys(), "serving needs nothing that measures"
    assert wanted(project["dependency-groups"]["build"]) <= versions(BUILD).keys(), "scripts/lock --keep"
    assert wanted(project["build-system"]["requires"]) <= versions(BUILD).keys(), "scripts/lock --keep"


def test_a_package_has_the_same_version_in_every_lock() -> None:
    tests = versions(DEV)
    for file in (SERVER, SETUP, BUILD):
        differing = {name for name, version in versions(file).items() if tests.get(name, version) != version}
        assert not differing, file
