"""Rows as earlier versions of the program wrote them: they are read for ever, as they were meant.

When an encoding changes it gets a new tag and a lift (core/codec.py); the bytes here stay, and
what they are read as may only gain what is new. They are never written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from garage_lite.core.ballot import Acceptor, Ballot, Proposal
from garage_lite.core.block.resync import ResyncEntry
from garage_lite.core.crdt import Lww, LwwMap
from garage_lite.core.ids import BlockHash, BucketId, DataId, NodeId, VersionId
from garage_lite.core.model.buckets import Alias, Bucket
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.objects import (
    Checksum,
    ChecksumType,
    Encryption,
    Floor,
    Kind,
    ObjectMeta,
    ObjectVersion,
)
from garage_lite.core.model.rowkeys import Stamp
from garage_lite.core.model.uploads import Completed, Part, Upload, UploadState
from garage_lite.core.model.versions import (
    BlockEntry,
    BlockRef,
    PartEntry,
    Pending,
    PendingState,
    decode_page,
    decode_part_list,
    encode_page,
    encode_part_list,
)

STAMP: Final = Stamp(1_700_000_000_000_000, 2, VersionId(b"v" * 16))
BUCKET: Final = BucketId(b"b" * 32)
SHA: Final = Checksum("SHA256", b"s" * 4, ChecksumType.COMPOSITE)
META: Final = ObjectMeta((("content-type", "text/plain"),), SHA, Encryption(b"t", b"r", "bQ=="))

VERSION: Final = ObjectVersion(
    STAMP,
    Kind.MULTIPART,
    1_700_000_000_000,
    70_000,
    b"e" * 16,
    3,
    null=False,
    removed=True,
    settled=True,
    floor=Floor.NULL,
    meta=META,
    replaces=Stamp(7, 0, VersionId(b"o" * 16)),
    ballot=(4, b"n" * 4),
    void=True,
    sure=True,
)
DONE: Final = Completed(b"e" * 16, 3, b"p" * 4, SHA, 5, STAMP)
SETTINGS: Final = Bucket(
    BUCKET,
    5,
    False,
    LwwMap({"photos": Lww(1, True)}),
    LwwMap({"GK1/mine": Lww(2, True)}),
    LwwMap({"GK1": Lww(3, 7)}),
    Lww(4, {"index": "i"}),
    Lww(5, [{"origins": ["*"]}]),
    Lww(6, None),
    Lww(7, [10, None]),
    Lww(8, 1),
)
KEY: Final = AccessKey(
    "GK1", "secret", 5, False, Lww(1, "é"), Lww(2, 9), Lww(3, True), LwwMap({"m": Lww(4, "b")})
)

Decoder = Callable[[bytes], Any]
KEPT: Final[dict[str, tuple[Any, Decoder, str]]] = {
    "version": (
        VERSION,
        lambda data: ObjectVersion.decode(STAMP, data),
        "990103cf0000018bcfe56800ce00011170c41065656565656565656565656565656565031e01c453"
        "959192ac636f6e74656e742d74797065aa746578742f706c61696e93a6534841323536c404737373"
        "730193c40174c40172a462513d3d930700c4106f6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f9204c4046e"
        "6e6e6e",
    ),
    "upload": (
        Upload(
            UploadState.COMPLETED,
            9,
            "GK1",
            ObjectMeta(META.headers, None, META.encryption),
            "SHA256",
            ChecksumType.COMPOSITE,
            DONE,
        ),
        Upload.decode,
        "99010209a3474b319192ac636f6e74656e742d74797065aa746578742f706c61696e93c40174c401"
        "72a462513d3da65348413235360196c4106565656565656565656565656565656503c40470707070"
        "93a6534841323536c40473737373010593cf00060a24181e400002c4107676767676767676767676"
        "7676767676",
    ),
    "part": (
        Part(DataId(b"d" * 16), 70_000, b"e" * 16, 9, SHA, removed=True),
        Part.decode,
        "9701c41064646464646464646464646464646464ce00011170c41065656565656565656565656565"
        "6565650993a6534841323536c4047373737301c3",
    ),
    "pending": (
        Pending(PendingState.FENCED, 9, NodeId(b"n" * 32), b"boot", b"owner"),
        Pending.decode,
        "96010109c4206e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6ec404"
        "626f6f74c4056f776e6572",
    ),
    "block ref": (
        BlockRef(BUCKET, deleted=True),
        BlockRef.decode,
        "9301c4206262626262626262626262626262626262626262626262626262626262626262c3",
    ),
    "page": (
        [BlockEntry(1 << 20, BlockHash(b"h" * 32)), BlockEntry(9, BlockHash(b"i" * 32))],
        decode_page,
        "930192ce0010000009c4406868686868686868686868686868686868686868686868686868686868"
        "6868686969696969696969696969696969696969696969696969696969696969696969",
    ),
    "part list": (
        [PartEntry(2, DataId(b"d" * 16), 70_000, b"e" * 16, SHA)],
        decode_part_list,
        "9201919502c41064646464646464646464646464646464ce00011170c41065656565656565656565"
        "65656565656593a6534841323536c4047373737301",
    ),
    "counters": (
        Counters(1, 2, 3, 4, 5, 70_000),
        Counters.decode,
        "97010102030405ce00011170",
    ),
    "bucket": (
        SETTINGS,
        lambda data: Bucket.decode(BUCKET, data),
        "9b0105c29193a670686f746f7301c39193a8474b312f6d696e6502c39193a3474b310307920481a5"
        "696e646578a16992059181a76f726967696e7391a12a9206c09207920ac0920801",
    ),
    "alias": (
        Alias(Lww(9, BUCKET)),
        Alias.decode,
        "930109c4206262626262626262626262626262626262626262626262626262626262626262",
    ),
    "access key": (
        KEY,
        lambda data: AccessKey.decode("GK1", data),
        "9801a673656372657405c29201a2c3a99202099203c39193a16d04a162",
    ),
    "acceptor": (
        Acceptor(
            Ballot(9, b"n" * 4),
            Ballot(8, b"m" * 4),
            Proposal(b"name", ((b"row", b"value"),), (b"blind",)),
            ((b"noted", 7),),
            6,
        ),
        Acceptor.decode,
        "96019209c4046e6e6e6e9208c4046d6d6d6d93c4046e616d659192c403726f77c40576616c756591"
        "c405626c696e649192c4056e6f7465640706",
    ),
    "resync entry": (
        ResyncEntry(9, 2, 70_000),
        ResyncEntry.decode,
        "94010902ce00011170",
    ),
}
"""What was meant, how it is read, and the bytes that were written of it."""

ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "page": encode_page,
    "part list": encode_part_list,
}


def encoded(name: str, row: Any) -> bytes:
    return ENCODERS[name](row) if name in ENCODERS else bytes(row.encode())


@pytest.mark.parametrize("name", KEPT)
def test_i4_bytes_written_long_ago_are_read_as_they_were_meant(name: str) -> None:
    meant, decode, written = KEPT[name]
    assert decode(bytes.fromhex(written)) == meant


@pytest.mark.parametrize("name", KEPT)
def test_i4_whoever_reads_them_writes_the_same_bytes(name: str) -> None:
    """So nodes that lift an old row at different times agree byte for byte afterwards."""
    meant, decode, written = KEPT[name]
    assert encoded(name, decode(bytes.fromhex(written))) == encoded(name, meant)
