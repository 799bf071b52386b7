"""What is stored outside the KV cache: which prefixes, where, how large. The backend holds the bytes.

Every stored prefix has a key. Its bytes are in memory, on disk or both; a new one goes to memory and, where
there is a disk, is written behind. Both places are bounded; what was not used for longest goes first: from
memory it is only unloaded where the disk has it. Identity is that of the prefix index: tokens and salt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from rllm.engine.port import Forget, Load, Op, Save, StoredPrefix, StoreReport, Unload
from rllm.engine.prefix import PrefixIndex

_SLACK = 4096
"""Bytes of a state that do not depend on its length, generously."""
_TOKEN_SLACK = 32
"""Bytes of a token beside its keys and values: its position and its sequence."""


class Place(Enum):
    SAVING = "saving"
    """The backend was asked to store it and has not answered."""
    MEMORY = "memory"
    DISK = "disk"
    LOADING = "loading"
    """On its way from disk to memory."""


_IN_MEMORY = frozenset({Place.SAVING, Place.MEMORY, Place.LOADING})


@dataclass(slots=True)
class Entry:
    key: int
    length: int
    num_bytes: int
    place: Place
    on_disk: bool = False
    """There is a file, or it is being written."""
    is_written: bool = False
    supersedes: int = -1
    """A key whose prefix this one contains, to be forgotten once this one is stored."""


@dataclass(frozen=True, slots=True)
class Found:
    """``key`` holds the first ``length`` tokens, and others up to ``entry_length``."""

    key: int
    length: int
    entry_length: int
    num_bytes: int
    place: Place


class PrefixStore:
    """The account of one backend's store."""

    def __init__(
        self,
        memory_bytes: int,
        disk_bytes: int,
        cell_bytes: float,
        ops: list[Op],
        stored: Iterable[StoredPrefix] = (),
    ) -> None:
        """
        Args:
            cell_bytes: a first estimate of what a token takes; corrected by what the backend reports.
            ops: where what the backend must do is appended.
            stored: what is on disk already, least recently used first.
        """
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._token_bytes = cell_bytes + _TOKEN_SLACK
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._index = PrefixIndex()
        self._memory_used = self._disk_used = 0
        self._next_key = 0
        self._ops = ops
        for prefix in stored:
            self._recall(prefix)
        self._make_disk_room(0)

    @property
    def memory_used(self) -> int:
        return self._memory_used

    @property
    def disk_used(self) -> int:
        return self._disk_used

    @property
    def entries(self) -> Mapping[int, Entry]:
        """What is stored, by key."""
        return self._entries

    def estimate(self, length: int) -> int:
        """Bytes that a prefix of ``length`` tokens will probably take."""
        return int(length * self._token_bytes) + _SLACK

    def fits(self, num_bytes: int) -> bool:
        return num_bytes <= self._memory_bytes

    # --- finding --------------------------------------------------------------------------------

    def find(self, tokens: Sequence[int], salt: str) -> Found | None:
        """The longest stored beginning of ``tokens`` that can be restored, now or once it is loaded."""
        match = self._index.match(tokens, self._usable, salt)
        if not match.length:
            return None
        entry = self._entries[match.seq]
        return Found(entry.key, match.length, entry.length, entry.num_bytes, entry.place)

    def covered(self, tokens: Sequence[int], salt: str) -> int:
        """How many of ``tokens`` are stored, or will be; their entry counts as used."""
        match = self._index.match(tokens, self._length, salt)
        if match.length:
            self.touch(match.seq)
        return match.length

    def touch(self, key: int) -> None:
        self._entries.move_to_end(key)

    def _usable(self, key: int) -> int:
        entry = self._entries[key]
        return 0 if entry.place is Place.SAVING else entry.length

    def _length(self, key: int) -> int:
        return self._entries[key].length

    # --- moving ---------------------------------------------------------------------------------

    def save(self, seq: int, tokens: Sequence[int], salt: str, keep: int = -1) -> bool:
        """Have ``seq``, which holds ``tokens``, stored. False: there is no room for it.

        Args:
            keep: a key that must not give way.
        """
        num_bytes = self.estimate(len(tokens))
        if not self._make_memory_room(num_bytes, keep):
            return False
        to_disk = num_bytes <= self._disk_bytes and self._make_disk_room(num_bytes, keep)
        key, self._next_key = self._next_key, self._next_key + 1
        contained = self._index.match(tokens, self._length, salt)
        entry = Entry(key, len(tokens), num_bytes, Place.SAVING, on_disk=to_disk)
        if contained.length and self._length(contained.seq) == contained.length:
            entry.supersedes = contained.seq
        self._add(entry, tokens, salt)
        self._ops.append(Save(seq, key, tuple(tokens), salt, to_disk))
        return True

    def load(self, key: int) -> bool:
        """Have a prefix brought from disk to memory. False: there is no room for it."""
        entry = self._entries[key]
        if not self._make_memory_room(entry.num_bytes, key):
            return False
        entry.place = Place.LOADING
        self._memory_used += entry.num_bytes
        self.touch(key)
        self._ops.append(Load(key))
        return True

    def heard(self, report: StoreReport) -> None:
        """What has become of what was asked for."""
        for key in report.lost:
            self._remove(key)
        for key, num_bytes in report.saved.items():
            self._saved(key, num_bytes)
        for key in report.loaded:
            if key in self._entries:
                self._entries[key].place = Place.MEMORY
        for key in report.written:
            if key in self._entries:
                self._entries[key].is_written = True
        for key in report.unwritten:
            if key in self._entries:
                self._leave_disk(self._entries[key])
        self._make_memory_room(0)
        self._make_disk_room(0)

    def _saved(self, key: int, num_bytes: int) -> None:
        entry = self._entries[key]
        grown = num_bytes - entry.num_bytes
        self._memory_used += grown
        self._disk_used += grown if entry.on_disk else 0
        entry.num_bytes = num_bytes
        entry.place = Place.MEMORY
        if grown > 0:
            self._token_bytes = num_bytes / entry.length
        old = self._entries.get(entry.supersedes)
        if old is not None and old.place in (Place.MEMORY, Place.DISK):
            self._forget(old)

    # --- making room ----------------------------------------------------------------------------

    def _make_memory_room(self, num_bytes: int, keep: int = -1) -> bool:
        limit = self._memory_bytes - num_bytes
        if self._memory_used <= limit:
            return True
        going = [e for e in self._entries.values() if e.place is Place.MEMORY and e.key != keep]
        if self._memory_used - sum(entry.num_bytes for entry in going) > limit:
            return False
        for entry in sorted(going, key=_is_being_written):
            if self._memory_used <= limit:
                break
            if entry.is_written:
                entry.place = Place.DISK
                self._memory_used -= entry.num_bytes
                self._ops.append(Unload(entry.key))
            else:
                self._forget(entry)
        return True

    def _make_disk_room(self, num_bytes: int, keep: int = -1) -> bool:
        """What is in memory, too, keeps its file: it will need it."""
        limit = self._disk_bytes - num_bytes
        if self._disk_used <= limit:
            return True
        for entry in [e for e in self._entries.values() if e.place is Place.DISK and e.key != keep]:
            if self._disk_used <= limit:
                break
            self._forget(entry)
        return self._disk_used <= limit

    def _forget(self, entry: Entry) -> None:
        self._remove(entry.key)
        self._ops.append(Forget(entry.key))

    # --- the account ----------------------------------------------------------------------------

    def _recall(self, prefix: StoredPrefix) -> None:
        entry = Entry(prefix.key, len(prefix.tokens), prefix.num_bytes, Place.DISK, True, True)
        self._next_key = max(self._next_key, prefix.key + 1)
        self._add(entry, prefix.tokens, prefix.salt)

    def _add(self, entry: Entry, tokens: Sequence[int], salt: str) -> None:
        self._entries[entry.key] = entry
        self._index.insert(entry.key, tokens, salt)
        self._memory_used += entry.num_bytes if entry.place in _IN_MEMORY else 0
        self._disk_used += entry.num_bytes if entry.on_disk else 0

    def _remove(self, key: int) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._index.remove(key)
        self._memory_used -= entry.num_bytes if entry.place in _IN_MEMORY else 0
        self._leave_disk(entry)

    def _leave_disk(self, entry: Entry) -> None:
        if entry.on_disk:
            self._disk_used -= entry.num_bytes
            entry.on_disk = entry.is_written = False

    def check(self) -> None:
        """Recompute the account from scratch; raises AssertionError where it differs."""
        self._index.check()
        entries = self._entries.values()
        assert self._memory_used == sum(e.num_bytes for e in entries if e.place in _IN_MEMORY)
        assert self._disk_used == sum(e.num_bytes for e in entries if e.on_disk)
        assert self._memory_used <= self._memory_bytes
        assert self._disk_used <= self._disk_bytes
        for entry in entries:
            assert self._index.length(entry.key) == entry.length
            assert entry.on_disk or not entry.is_written
            assert entry.is_written or entry.place in (Place.SAVING, Place.MEMORY)


def _is_being_written(entry: Entry) -> bool:
    """Such entries go last: their file is not worth anything yet, and soon will be."""
    return entry.on_disk and not entry.is_written
