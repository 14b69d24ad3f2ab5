"""Digests of streams: MD5, the SHA and the CRC checksums that S3 knows, and how CRCs join.

Pure arithmetic over bytes. MD5, SHA and CRC32 come from the interpreter; CRC32C and CRC64NVME
from anycrc, which folds by carry-less multiplication: a table in pure Python does 8 MB/s, too
slow for the checksum that the AWS CLI sends by default.

Values are raw digests, CRCs big-endian, as S3 writes them in base64.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import anycrc

from garage_lite.core.ports import Buffer

MD5: Final = "MD5"
DIGEST_BYTES: Final[Mapping[str, int]] = {
    "CRC32": 4,
    "CRC32C": 4,
    "CRC64NVME": 8,
    "SHA1": 20,
    "SHA256": 32,
}
"""The algorithms of S3's additional checksums, and how long their values are."""

_MODELS: Final[Mapping[str, Any]] = {
    "CRC32": anycrc.Model("CRC32"),
    "CRC32C": anycrc.Model("CRC32C"),
    "CRC64NVME": anycrc.Model("CRC64-NVME"),
}


class Digest(Protocol):
    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC by a function that continues from an earlier value."""

    __slots__ = ("_continue", "_length", "_value")

    def __init__(self, length: int, proceed: Callable[[Buffer, int], int]) -> None:
        self._length = length
        self._continue = proceed
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._continue(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._length, "big")


def _anycrc(name: str) -> Callable[[Buffer, int], int]:
    model = _MODELS[name]

    def proceed(data: Buffer, value: int) -> int:
        # An empty stream continued from "nothing yet" must not touch the initial value.
        result: int = model.calc(data, value) if len(data) else value
        return result

    return proceed


def new_digest(name: str) -> Digest:
    """A running digest. Raises KeyError for a name that is neither MD5 nor in DIGEST_BYTES."""
    if name == MD5:
        return hashlib.md5(usedforsecurity=False)
    if name == "SHA256":
        return hashlib.sha256()
    if name == "SHA1":
        return hashlib.sha1(usedforsecurity=False)
    if name == "CRC32":
        return _Crc(4, zlib.crc32)
    return _Crc(DIGEST_BYTES[name], _anycrc(name))


class Digests:
    """Several digests of one stream, fed in order. Not for two threads at once."""

    __slots__ = ("_running", "size")

    def __init__(self, names: Iterable[str]) -> None:
        self._running = {name: new_digest(name) for name in names}
        self.size = 0
        """Bytes seen."""

    def update(self, parts: Iterable[Buffer]) -> None:
        """Feed the next bytes. Part by part through all digests while it is in the cache."""
        running = list(self._running.values())
        for part in parts:
            self.size += len(part)
            for digest in running:
                digest.update(part)

    def results(self) -> dict[str, bytes]:
        return {name: digest.digest() for name, digest in self._running.items()}


def combines(algorithm: str) -> bool:
    """Whether the checksum of a whole follows from those of its parts."""
    return algorithm in _MODELS


def combine(algorithm: str, parts: Sequence[tuple[bytes, int]]) -> bytes:
    """The CRC of the concatenation of parts, each given by its CRC and its size.

    Multiplication by x^(8 size) modulo the polynomial: zlib's crc32_combine (M. Adler).
    """
    model = _MODELS[algorithm]
    length = DIGEST_BYTES[algorithm]
    whole = 0
    for value, size in parts:
        part = int.from_bytes(value, "big")
        whole = model.combine(whole, part, size) if size else whole
    return whole.to_bytes(length, "big")


def composite(algorithm: str, values: Iterable[bytes]) -> bytes:
    """S3's checksum of checksums: the digest of the parts' values one after another."""
    digest = new_digest(algorithm)
    for value in values:
        digest.update(value)
    return digest.digest()
