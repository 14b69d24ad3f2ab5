"""Random rows of every type, from small pools so that copies of one row often tie.

`MERGED`: each type that merges, as (how to draw a copy of one row, decode bytes of that row).
`ENCODED`: each encoding, as (how to draw a value, encode, decode).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

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

Decoder = Callable[[bytes], Any]

STAMP = Stamp(10**15, 3, VersionId(b"v" * 16))
BUCKET = BucketId(b"b" * 32)

numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**53))
stamps = st.one_of(st.integers(0, 3), st.integers(0, 2**62))
words = st.one_of(st.sampled_from(["", "a", "é"]), st.text(max_size=8))
octets = st.one_of(st.sampled_from([b"", b"\x00", b"\xff"]), st.binary(max_size=20))


def ids(length: int) -> st.SearchStrategy[bytes]:
    return st.sampled_from([bytes(length), b"\x01" * length, b"\xff" * length])


leaves = st.one_of(st.none(), st.booleans(), st.integers(-3, 2**40), words)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


def registers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Lww[Any]]:
    return st.builds(Lww, stamps, values)


def maps(values: st.SearchStrategy[Any]) -> st.SearchStrategy[LwwMap[Any]]:
    names = st.sampled_from(["GK1", "GK2:name", "é", ""])
    entries = st.dictionaries(names, registers(st.one_of(st.none(), values)), max_size=3)
    return st.builds(LwwMap, entries)


checksums = st.builds(
    Checksum,
    st.sampled_from(["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]),
    octets,
    st.sampled_from(ChecksumType),
)
encryptions = st.builds(Encryption, octets, octets, words)
headers = st.lists(st.tuples(words, words), max_size=3).map(tuple)
metas = st.builds(ObjectMeta, headers, st.none() | checksums, st.none() | encryptions)
versions = st.builds(
    ObjectVersion,
    st.just(STAMP),
    st.sampled_from(Kind),
    mtime_ms=numbers,
    size=numbers,
    etag=octets,
    parts=st.integers(0, 10_000),
    null=st.booleans(),
    removed=st.booleans(),
    settled=st.booleans(),
    floor=st.sampled_from(Floor),
    meta=metas,
    replaces=st.none() | st.just(Stamp(7, 0, VersionId(b"o" * 16))),
    ballot=st.none() | st.tuples(numbers, ids(32)),
)
completions = st.builds(
    Completed, octets, numbers, ids(32), st.none() | checksums, numbers, st.just(STAMP)
)
uploads = st.builds(
    Upload,
    st.sampled_from(UploadState),
    started_ms=numbers,
    initiator=words,
    meta=st.builds(ObjectMeta, headers, st.none(), st.none() | encryptions),
    checksum_algorithm=st.none() | words,
    checksum_type=st.none() | st.sampled_from(ChecksumType),
    completed=st.none() | completions,
)
parts = st.builds(
    Part, ids(16).map(DataId), numbers, octets, numbers, st.none() | checksums, st.booleans()
)
pendings = st.builds(Pending, st.sampled_from(PendingState), numbers, ids(32).map(NodeId), ids(16))
block_refs = st.builds(BlockRef, ids(32).map(BucketId), st.booleans())
buckets = st.builds(
    Bucket,
    st.just(BUCKET),
    numbers,
    st.booleans(),
    maps(st.booleans()),
    maps(st.booleans()),
    maps(st.integers(0, 7)),
    *[registers(documents)] * 4,
    registers(st.integers(0, 2)),
)
aliases = st.builds(Alias, registers(st.none() | ids(32)))
live_keys = st.builds(
    AccessKey,
    st.just("GK1"),
    words,
    numbers,
    st.just(False),
    registers(words),
    registers(st.none() | numbers),
    registers(st.booleans()),
    maps(words),
)
dead_keys = st.builds(
    AccessKey,
    st.just("GK1"),
    st.just(""),
    numbers,
    st.just(True),
    registers(words),
    registers(st.none() | numbers),
    registers(st.booleans()),
    maps(words),
)
counters = st.builds(Counters, *[numbers] * 6)
pages = st.lists(st.builds(BlockEntry, numbers, ids(32).map(BlockHash)), max_size=4)
part_lists = st.lists(
    st.builds(PartEntry, numbers, ids(16).map(DataId), numbers, octets, st.none() | checksums),
    max_size=4,
)

MERGED: dict[str, tuple[st.SearchStrategy[Any], Decoder]] = {
    "version": (versions, lambda data: ObjectVersion.decode(STAMP, data)),
    "upload": (uploads, Upload.decode),
    "part": (parts, Part.decode),
    "pending": (pendings, Pending.decode),
    "block ref": (block_refs, BlockRef.decode),
    "bucket": (buckets, lambda data: Bucket.decode(BUCKET, data)),
    "alias": (aliases, Alias.decode),
    "access key": (live_keys | dead_keys, lambda data: AccessKey.decode("GK1", data)),
}
ENCODED: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Decoder]] = {
    **{name: (rows, lambda row: row.encode(), decode) for name, (rows, decode) in MERGED.items()},
    "counters": (counters, lambda row: row.encode(), Counters.decode),
    "page": (pages, encode_page, decode_page),
    "part list": (part_lists, encode_part_list, decode_part_list),
}
