"""A report as it is kept: its pages and pictures, and one archive with all that they were made of.

Pages are those in the folder itself and those that they lead to. quality.json stays beside them, and so do
run.json and records.jsonl.zst of a single run.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from rllm_bench.records import archive

_BESIDE = ("run.json", "records.jsonl.zst", "quality.json", "vocabulary.json")
_SHOWN = (".md", ".png", ".svg")
_LINK = re.compile(r"\]\((?P<place>[^)#\s]+)(?P<rest>[^)]*)\)")


def pack(folder: Path) -> Path:
    """Packs a report's folder; links to what is packed then lead to the archive. Returns the archive."""
    folder = folder.resolve()
    archive.extract(folder)
    stays = {folder / name for name in _BESIDE} | _shown(folder)
    packed = {path for path in folder.rglob("*") if path.is_file()} - stays
    for page in sorted(path for path in stays if path.suffix == ".md"):
        links = partial(_to_archive, page=page, folder=folder, packed=packed)
        page.write_text(_LINK.sub(links, page.read_text()))
    archive.write(folder, sorted(packed))
    return folder / archive.NAME


def _shown(folder: Path) -> set[Path]:
    """The pages in the folder, the pages and pictures below it that they lead to, and theirs."""
    pages = list(folder.glob("*.md"))
    found = set(pages)
    while pages:
        one = pages.pop()
        for match in _LINK.finditer(one.read_text()):
            place = (one.parent / match["place"]).resolve()
            ours = place.is_relative_to(folder) and place.is_file() and place.suffix in _SHOWN
            if ours and place not in found:
                found.add(place)
                pages += [place] if place.suffix == ".md" else []
    return found


def _to_archive(match: re.Match[str], page: Path, folder: Path, packed: set[Path]) -> str:
    """The link, or one to the archive whose title is the path inside it."""
    place = (page.parent / match["place"]).resolve()
    if (place not in packed and not any(place in path.parents for path in packed)) or place == folder:
        return match[0]
    up = "../" * len(page.parent.relative_to(folder).parts)
    return f']({up}{archive.NAME} "{place.relative_to(folder)}")'
