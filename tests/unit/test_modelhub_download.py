"""A download is continued, checked, and never takes a wrong file for a right one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rllm.errors import HubError
from rllm.modelhub import provenance
from rllm.modelhub.catalog import Model, UrlSource
from rllm.modelhub.download import download
from rllm.modelhub.pull import Pull
from tests.unit.modelhub_files import FileServer, serve, sha256, write_gguf


@pytest.fixture
def body(tmp_path: Path) -> bytes:
    return write_gguf(tmp_path / "made.gguf").read_bytes()


@pytest.fixture
def server(body: bytes) -> Iterator[FileServer]:
    with serve(body) as running:
        yield running


def _pull(directory: Path, server: FileServer, digest: str, *, force: bool = False) -> list[str]:
    said: list[str] = []
    model = Model(file="tiny.gguf", source=UrlSource(url=server.url), sha256=digest, licence="MIT")
    Pull(directory, said.append, force=force).model(model, with_variants=False)
    return said


def test_a_dropped_connection_is_continued(tmp_path: Path, server: FileServer, body: bytes) -> None:
    server.hang_up_after = [1000, 500]
    download(server.url, tmp_path / "x.part", pause_s=0)
    assert (tmp_path / "x.part").read_bytes() == body
    assert server.ranges == [None, "bytes=1000-", "bytes=1500-"]


def test_a_part_of_an_earlier_run_is_continued(tmp_path: Path, server: FileServer, body: bytes) -> None:
    (tmp_path / "x.part").write_bytes(body[:4000])
    (tmp_path / "x.part.etag").write_text(server.etag)
    download(server.url, tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == body
    assert server.ranges == ["bytes=4000-"]
    assert not (tmp_path / "x.part.etag").exists()


def test_a_part_of_another_version_is_started_over(tmp_path: Path, server: FileServer, body: bytes) -> None:
    (tmp_path / "x.part").write_bytes(b"old" * 1000)
    (tmp_path / "x.part.etag").write_text('"zero"')
    download(server.url, tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == body


def test_a_part_of_unknown_origin_is_started_over(tmp_path: Path, server: FileServer, body: bytes) -> None:
    (tmp_path / "x.part").write_bytes(b"?" * 100)
    download(server.url, tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == body


def test_a_part_that_is_too_long_is_started_over(tmp_path: Path, server: FileServer, body: bytes) -> None:
    (tmp_path / "x.part").write_bytes(body + b"more")
    (tmp_path / "x.part.etag").write_text(server.etag)
    download(server.url, tmp_path / "x.part", pause_s=0)
    assert (tmp_path / "x.part").read_bytes() == body


def test_a_busy_server_is_asked_again(tmp_path: Path, server: FileServer, body: bytes) -> None:
    server.statuses = [503, 429]
    download(server.url, tmp_path / "x.part", pause_s=0)
    assert (tmp_path / "x.part").read_bytes() == body


def test_a_missing_file_is_not_asked_for_again(tmp_path: Path, server: FileServer) -> None:
    server.statuses = [404] * 9
    with pytest.raises(HubError, match="404"):
        download(server.url, tmp_path / "x.part", pause_s=0)
    assert len(server.ranges) == 1


def test_it_gives_up_when_nothing_comes(tmp_path: Path, server: FileServer) -> None:
    server.hang_up_after = [0] * 20
    with pytest.raises(HubError, match="run again to continue"):
        download(server.url, tmp_path / "x.part", pause_s=0)
    assert len(server.ranges) == 5


def test_a_pulled_file_is_whole_and_says_where_it_came_from(
    tmp_path: Path, server: FileServer, body: bytes
) -> None:
    _pull(tmp_path, server, sha256(body))
    assert (tmp_path / "tiny.gguf").read_bytes() == body
    record = provenance.load(tmp_path / "tiny.gguf")
    assert record is not None
    assert (record.origin, record.sha256, record.licence, record.type) == (
        server.url,
        sha256(body),
        "MIT",
        "F16",
    )


def test_the_second_pull_asks_nobody(tmp_path: Path, server: FileServer, body: bytes) -> None:
    _pull(tmp_path, server, sha256(body))
    said = _pull(tmp_path, server, sha256(body))
    assert len(server.ranges) == 1
    assert said == [f"{tmp_path / 'tiny.gguf'}: there"]


def test_a_wrong_checksum_leaves_nothing_behind(tmp_path: Path, server: FileServer) -> None:
    with pytest.raises(HubError, match="expected 0000"):
        _pull(tmp_path, server, "0" * 64)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made.gguf"]


def test_a_wrong_file_in_place_is_named_and_kept(tmp_path: Path, server: FileServer, body: bytes) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"mine")
    with pytest.raises(HubError, match="--force"):
        _pull(tmp_path, server, sha256(body))
    assert (tmp_path / "tiny.gguf").read_bytes() == b"mine"
    _pull(tmp_path, server, sha256(body), force=True)
    assert (tmp_path / "tiny.gguf").read_bytes() == body


def test_a_right_file_in_place_is_adopted(tmp_path: Path, server: FileServer, body: bytes) -> None:
    (tmp_path / "tiny.gguf").write_bytes(body)
    _pull(tmp_path, server, sha256(body))
    assert server.ranges == []
    assert provenance.state_of(tmp_path / "tiny.gguf") is provenance.State.CURRENT


def test_something_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    page = b"<html>please log in</html>"
    with serve(page) as server, pytest.raises(HubError, match=r"not a GGUF.*the download was removed"):
        _pull(tmp_path, server, sha256(page))
    assert list(tmp_path.iterdir()) == []


def test_what_is_half_fetched_is_for_nobody_else(tmp_path: Path, server: FileServer, body: bytes) -> None:
    """Also where it was begun by a version that did not care; what is whole is as readable as other files."""
    part = tmp_path / "tiny.gguf.part"
    part.write_bytes(body[:10])
    part.chmod(0o644)
    part.with_name("tiny.gguf.part.etag").write_text(server.etag)
    server.hang_up_after = [0] * 20
    with pytest.raises(HubError, match="run again"):
        download(server.url, part, pause_s=0)
    assert part.stat().st_mode & 0o777 == 0o600
    server.hang_up_after = []
    _pull(tmp_path, server, sha256(body))
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "tiny.gguf").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path, server: FileServer) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        download(server.url, tmp_path / "x.part", pause_s=0)
    assert (tmp_path / "mine").read_text() == "precious"
