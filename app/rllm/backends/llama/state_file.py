"""The file of one stored prefix: what it is, whose it is, and whether it is whole.

    magic, format, length and checksum of the header    fixed size
    header                                              msgpack: fingerprint, tokens, salt, size and checksum
    state                                               as llama.cpp wrote it

Nothing is trusted that a checksum does not cover: llama.cpp would end the process on some broken states.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

SUFFIX = ".prefix"
_PREAMBLE = struct.Struct("<8sIII")
_MAGIC, _FORMAT = b"rllmkv\r\n", 1
_MAX_HEADER = 2**26

State = NDArray[np.uint8]


class Refused(Exception):
    """The file is not what it should be; the message says how."""


class Header(msgspec.Struct, frozen=True):
    fingerprint: str
    tokens: bytes
    """Little-endian 32-bit integers."""
    salt: str
    num_bytes: int
    checksum: int

    def token_ids(self) -> list[int]:
        return [int(token) for token in np.frombuffer(self.tokens, dtype="<i4")]


_decoder = msgspec.msgpack.Decoder(Header)


def write(path: Path, fingerprint: str, tokens: Sequence[int], salt: str, state: State) -> None:
    """Complete or not at all; readable by the owner only: tokens are what users wrote.

    Raises:
        OSError: not written; nothing is left.
    """
    header = msgspec.msgpack.encode(
        Header(
            fingerprint=fingerprint,
            tokens=np.asarray(tokens, dtype="<i4").tobytes(),
            salt=salt,
            num_bytes=state.nbytes,
            checksum=zlib.crc32(state.data),
        )
    )
    unfinished = path.with_suffix(".unfinished")
    try:
        with open(unfinished, "wb", opener=_private) as file:  # Path.open takes no opener
            file.write(_PREAMBLE.pack(_MAGIC, _FORMAT, len(header), zlib.crc32(header)))
            file.write(header)
            file.write(state.data)
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_header(path: Path, fingerprint: str) -> Header:
    """
    Raises:
        Refused: another format, model or settings; damaged; or not as long as it says.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header, size = _read_header(file), path.stat().st_size
        if header.fingerprint != fingerprint:
            raise Refused("of another model or other settings")
        if size != file.tell() + header.num_bytes:
            raise Refused(f"has {size} bytes, not {file.tell() + header.num_bytes}")
    return header


def read_state(path: Path, fingerprint: str) -> State:
    """
    Raises:
        Refused, OSError: as `read_header`, or the state is damaged.
    """
    header = read_header(path, fingerprint)
    state = np.empty(header.num_bytes, dtype=np.uint8)
    with path.open("rb") as file:
        _read_header(file)
        if file.readinto(state.data) != header.num_bytes:
            raise Refused("shorter than a moment ago")
    if zlib.crc32(state.data) != header.checksum:
        raise Refused("its checksum is wrong")
    return state


def _read_header(file: BinaryIO) -> Header:
    preamble = file.read(_PREAMBLE.size)
    if len(preamble) < _PREAMBLE.size:
        raise Refused("too short")
    magic, version, length, checksum = _PREAMBLE.unpack(preamble)
    if magic != _MAGIC or version != _FORMAT or length > _MAX_HEADER:
        raise Refused("not a stored prefix of this format")
    data = file.read(length)
    if zlib.crc32(data) != checksum:
        raise Refused("its header is damaged")
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise Refused(f"its header is damaged: {error}") from None
