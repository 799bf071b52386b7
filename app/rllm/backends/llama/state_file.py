"""The file of one stored prefix: what it is, whose it is, and whether it is whole.

    magic, format, length and checksum of the header    fixed size
    header                                              msgpack: fingerprint, tokens, salt, size and digest
    state                                               as llama.cpp wrote it

Nothing is trusted that the digest does not cover: llama.cpp would end the process on some broken states, and
a state under other tokens would be a wrong answer. It binds the state to model, settings, salt and tokens. It
has no key: whoever may write to the folder runs as the server's user anyway.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from rllm.files.regular_file import open_regular

SUFFIX = ".prefix"
_PREAMBLE = struct.Struct("<8sIII")
_MAGIC, _FORMAT = b"rllmkv\r\n", 2
_TOKEN_BYTES = 4
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
    digest: bytes

    @property
    def identity(self) -> bytes:
        return identity(self.tokens, self.salt)

    def token_ids(self) -> list[int]:
        return [int(token) for token in np.frombuffer(self.tokens, dtype="<i4")]


def as_bytes(tokens: Sequence[int]) -> bytes:
    return np.asarray(tokens, dtype="<i4").tobytes()


def identity(tokens: bytes, salt: str) -> bytes:
    """What a prefix is, among those of one model and its settings."""
    digest = hashlib.sha256(len(tokens).to_bytes(8, "little"))
    digest.update(tokens)
    digest.update(salt.encode())
    return digest.digest()


def _digest(fingerprint: str, identity: bytes, state: State) -> bytes:
    digest = hashlib.sha256(len(fingerprint).to_bytes(8, "little"))
    digest.update(fingerprint.encode())
    digest.update(identity)
    digest.update(state.data)
    return digest.digest()


_decoder = msgspec.msgpack.Decoder(Header)


def write(path: Path, fingerprint: str, tokens: Sequence[int], salt: str, state: State) -> None:
    """Complete or not at all; readable by the owner only: tokens are what users wrote.

    Raises:
        OSError: not written; nothing is left.
    """
    data = as_bytes(tokens)
    header = msgspec.msgpack.encode(
        Header(
            fingerprint=fingerprint,
            tokens=data,
            salt=salt,
            num_bytes=state.nbytes,
            digest=_digest(fingerprint, identity(data, salt), state),
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
    with open_regular(path) as file:
        header, size = _read_header(file), os.fstat(file.fileno()).st_size
        if header.fingerprint != fingerprint:
            raise Refused("of another model or other settings")
        if size != file.tell() + header.num_bytes:
            raise Refused(f"has {size} bytes, not {file.tell() + header.num_bytes}")
    return header


def read_state(path: Path, fingerprint: str, wanted: bytes) -> State:
    """
    Args:
        wanted: the identity of the prefix that is to be there.

    Raises:
        Refused, OSError: as `read_header`, or it is another prefix, or the state is damaged.
    """
    header = read_header(path, fingerprint)
    if header.identity != wanted:
        raise Refused("it is another prefix than it was")
    state = np.empty(header.num_bytes, dtype=np.uint8)
    with open_regular(path) as file:
        if _read_header(file) != header or file.readinto(state.data) != header.num_bytes:
            raise Refused("not what it was a moment ago")
    if _digest(fingerprint, wanted, state) != header.digest:
        raise Refused("its digest is wrong")
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
        header = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise Refused(f"its header is damaged: {error}") from None
    if len(header.tokens) % _TOKEN_BYTES or header.num_bytes < 0:
        raise Refused("its header is damaged: it has a part of a token, or less than no bytes")
    return header
