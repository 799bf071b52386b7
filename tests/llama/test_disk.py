"""Files of stored prefixes: whole or refused, one worker each, and nothing outdated left behind."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rllm.backends.llama import state_file
from rllm.backends.llama.disk import Disk, Loaded, Written
from rllm.backends.llama.fingerprint import fingerprint
from rllm.backends.llama.state_file import Refused, State
from rllm.errors import StartError

TOKENS, SALT = (1, 2, 70_000), "tenant"
MINE, OTHER = "a" * 64, "b" * 64
IDENTITY = state_file.identity(state_file.as_bytes(TOKENS), SALT)


@pytest.fixture
def state() -> State:
    return np.random.default_rng(1).integers(0, 256, 100_000, dtype=np.uint8)


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, level: str, line: str) -> None:
        self.lines.append(line)


def open_disk(folder: Path, name: str = MINE, log: Log | None = None) -> closing[Disk]:
    return closing(Disk(folder, Path("model.gguf"), name, log or Log()))


def events(disk: Disk, count: int) -> Iterator[Written | Loaded]:
    while count:
        disk.wait(20)
        for event in disk.take_done():
            count -= 1
            yield event


def test_what_is_written_is_read_again(tmp_path: Path, state: State) -> None:
    with open_disk(tmp_path) as disk:
        disk.write(42, TOKENS, SALT, state)
        disk.read(42)
        written, loaded = events(disk, 2)
        assert written == Written(42)
        assert isinstance(loaded, Loaded)
        assert loaded.state is not None
        assert np.array_equal(loaded.state, state)
    with open_disk(tmp_path) as disk:
        (stored,) = disk.stored
        assert (stored.key, stored.tokens, stored.salt) == (42, list(TOKENS), SALT)
        assert stored.num_bytes == state.nbytes


def test_only_the_owner_can_read_what_users_wrote(tmp_path: Path, state: State) -> None:
    with open_disk(tmp_path / "store") as disk:
        disk.write(1, TOKENS, SALT, state)
        assert list(events(disk, 1)) == [Written(1)]
    (path,) = (tmp_path / "store").rglob("*.prefix")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_what_is_deleted_is_gone(tmp_path: Path, state: State) -> None:
    with open_disk(tmp_path) as disk:
        disk.write(1, TOKENS, SALT, state)
        assert list(events(disk, 1)) == [Written(1)]
        disk.delete(1)
        disk.read(1)
        (loaded,) = events(disk, 1)
        assert isinstance(loaded, Loaded)
        assert loaded.state is None
        assert "No such file" in loaded.problem


@pytest.mark.parametrize(
    ("at", "problem"),
    [(0, "not a stored prefix"), (10, "not a stored prefix"), (30, "header is damaged"), (-1, "digest")],
)
def test_every_flipped_bit_is_noticed(tmp_path: Path, state: State, at: int, problem: str) -> None:
    path = tmp_path / "00000001.prefix"
    state_file.write(path, MINE, TOKENS, SALT, state)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused, match=problem):
        state_file.read_state(path, MINE, IDENTITY)


@pytest.mark.parametrize("length", [0, 5, 40, 200, -1])
def test_every_cut_is_noticed(tmp_path: Path, state: State, length: int) -> None:
    path = tmp_path / "00000001.prefix"
    state_file.write(path, MINE, TOKENS, SALT, state)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Refused):
        state_file.read_header(path, MINE)


def test_what_does_not_belong_there_is_deleted(tmp_path: Path, state: State) -> None:
    with open_disk(tmp_path) as disk:
        disk.write(7, TOKENS, SALT, state)
        assert list(events(disk, 1)) == [Written(7)]
    (folder,) = tmp_path.iterdir()
    (folder / "00000008.unfinished").write_bytes(b"half")
    (folder / "notes.txt").write_text("hello")
    state_file.write(folder / "00000009.prefix", OTHER, TOKENS, SALT, state)
    log = Log()
    with open_disk(tmp_path, log=log) as disk:
        assert [stored.key for stored in disk.stored] == [7]
    assert sorted(path.name for path in folder.iterdir()) == ["00000007.prefix", "lock"]
    assert len(log.lines) == 3


def _folder(tmp_path: Path, state: State) -> Path:
    """A worker's, with prefix 7 in it."""
    with open_disk(tmp_path) as disk:
        disk.write(7, TOKENS, SALT, state)
        assert list(events(disk, 1)) == [Written(7)]
    (folder,) = tmp_path.iterdir()
    return folder


def _forged(path: Path, tokens: bytes, state: State, num_bytes: int) -> None:
    """A header whose checksum is right, whatever it says."""
    header = msgspec.msgpack.encode(state_file.Header(MINE, tokens, SALT, num_bytes, b"x" * 32))
    preamble = struct.pack("<8sIII", b"rllmkv\r\n", 2, len(header), zlib.crc32(header))
    path.write_bytes(preamble + header + state.tobytes())


def test_whatever_lies_in_the_folder_the_worker_starts(tmp_path: Path, state: State) -> None:
    """What is not a stored prefix is deleted with a line in the log, and nothing is waited for."""
    folder = _folder(tmp_path, state)
    os.mkfifo(folder / "00000001.prefix")
    (folder / "00000002.prefix").symlink_to(folder / "nothing")
    (folder / "00000003.prefix").symlink_to(folder / "00000007.prefix")
    (folder / "00000004.prefix").mkdir()
    _forged(folder / "00000005.prefix", b"\0" * 7, state, state.nbytes)
    _forged(folder / "00000006.prefix", b"\0" * 8, state, -5)
    (folder / "00000008.prefix").write_bytes(b"\xff" * 100)
    log = Log()
    with open_disk(tmp_path, log=log) as disk:
        assert [stored.key for stored in disk.stored] == [7]
    assert sorted(path.name for path in folder.iterdir()) == ["00000007.prefix", "lock"]
    assert len(log.lines) == 7
    assert sum("not a regular file" in line for line in log.lines) == 1


def test_a_state_is_given_back_under_its_own_tokens_only(tmp_path: Path, state: State) -> None:
    """Files that changed their names, and a state that changed its file, its checksums made right."""
    other = state[::-1].copy()
    with open_disk(tmp_path) as disk:
        disk.write(1, TOKENS, SALT, state)
        disk.write(2, TOKENS[:2], SALT, other)
        disk.write(3, TOKENS, "", other)
        list(events(disk, 3))
        (folder,) = tmp_path.iterdir()
        first, second, third = (folder / f"0000000{key}.prefix" for key in (1, 2, 3))
        first.rename(folder / "x")
        second.rename(first)
        (folder / "x").rename(second)
        third.write_bytes(third.read_bytes()[: -other.nbytes] + state.tobytes())
        for key in (1, 2, 3):
            disk.read(key)
        found = list(events(disk, 3))
    assert [isinstance(event, Loaded) and event.state for event in found] == [None] * 3
    problems = [event.problem for event in found]
    assert "another prefix" in problems[0]
    assert "another prefix" in problems[1]
    assert "digest is wrong" in problems[2]


def test_each_worker_has_a_folder_of_its_own(tmp_path: Path, state: State) -> None:
    with open_disk(tmp_path) as first, open_disk(tmp_path) as second:
        first.write(1, TOKENS, SALT, state)
        second.write(1, TOKENS, "", state)
        assert [*events(first, 1), *events(second, 1)] == [Written(1), Written(1)]
    with open_disk(tmp_path) as first:
        assert [stored.salt for stored in first.stored] == [SALT]


def test_folders_of_other_settings_go_unless_somebody_lives_there(tmp_path: Path, state: State) -> None:
    with open_disk(tmp_path, OTHER) as other:
        other.write(1, TOKENS, SALT, state)
        assert list(events(other, 1)) == [Written(1)]
        with open_disk(tmp_path):
            assert len(list(tmp_path.iterdir())) == 2
    with open_disk(tmp_path):
        (folder,) = tmp_path.iterdir()
        assert MINE[:16] in folder.name


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"prefix store: .*file"):
        Disk(tmp_path / "file", Path("model.gguf"), MINE, Log())


def test_a_full_disk_is_reported_and_leaves_nothing(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "the disk")

    with open_disk(tmp_path) as disk:
        monkeypatch.setattr(state_file, "write", full)
        disk.write(1, TOKENS, SALT, state)
        assert list(events(disk, 1)) == [Written(1, "the disk: No space left on device")]


def test_the_fingerprint_tells_models_and_settings_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, 9 * 2**20, dtype=np.uint8).tobytes()
    model = tmp_path / "model.gguf"
    model.write_bytes(base)
    mine = fingerprint(model, {"kv": "split"})
    assert mine == fingerprint(model, {"kv": "split"})
    assert mine != fingerprint(model, {"kv": "unified"})
    model.write_bytes(base[:-1] + bytes([base[-1] ^ 1]))
    assert mine != fingerprint(model, {"kv": "split"})
