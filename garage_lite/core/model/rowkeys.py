"""Where each row lives: the bytes of its key in the metadata engine.

    key = table (1) | partition (1) | the row's own

    table            own key                                              partition
    bucket      01   bucket id                                            0 (on every node)
    alias       02   name, UTF-8                                          0
    key         03   access key id                                        0
    token       04   token id                                             0
    object      10   bucket id | escaped key | inverted stamp             bucket id[0]
    inline      11   bucket id | version id                               bucket id[0]
    upload      12   bucket id | escaped key | upload id                  bucket id[0]
    part        13   bucket id | upload id | number (2) | inverted stamp  bucket id[0]
    page        14   bucket id | data id | end offset (8)                 bucket id[0]
    part list   15   bucket id | version id | end offset (8)              bucket id[0]
    pending     16   bucket id | data id                                  bucket id[0]
    counter     17   bucket id                                            bucket id[0]
    block ref   20   block hash | data id                                 hash[0]
    local 80..: rows of this node alone, never sent to a peer

Everything of a bucket is in one partition, so that a version, its inline bytes, its pages and
the counters commit in one record. `stamp` = clock (8) | successor (2) | version id (16), written
with every bit inverted: the newest version of a key is met first. `escaped key` writes 00 as
00 FF and ends with 00 01, so that byte order of keys is kept and no key is a prefix of another.
The bloom filters hash a key without its table's suffix (`SUFFIX_BYTES`): one look-up answers
"is there any version of this object?", "any part of this upload?", "any reference to this block?".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from garage_lite.core.ids import BlockHash, BucketId, DataId, VersionId


class Table(IntEnum):
    BUCKET = 0x01
    ALIAS = 0x02
    KEY = 0x03
    TOKEN = 0x04
    OBJECT = 0x10
    INLINE = 0x11
    UPLOAD = 0x12
    PART = 0x13
    PAGE = 0x14
    PART_LIST = 0x15
    PENDING = 0x16
    COUNTER = 0x17
    BLOCK_REF = 0x20
    RESYNC_DUE = 0x80
    """due time, us (8) | block hash: what the resync worker does next."""
    RESYNC = 0x81
    """block hash -> when it is due and how often it failed."""
    CASCADE = 0x82
    """due time, us (8) | bucket id | data, version or upload id | `CascadeKind`: removed, what it
    owns goes next. -> key of the row that says so"""
    TOMBSTONE = 0x83
    """due time, us (8) | row key: tombstones to forget."""
    NODE = 0x84
    """name -> small state of this node: newest stamp, layout, counters of restarts."""
    BURIED = 0x85
    """as an object row: one that older or newer rows depend on and that many others lie above
    (core/table/history.py), so that it is found without reading those."""
    BALLOT = 0x86
    """as the common start of an object's versions, or as an alias: what this replica remembers of
    that register's ballots (core/ballot.py)."""
    UNDECIDED = 0x87
    """as a row of a proposal that this replica accepted and knows no end of; readers of that row
    look for it, and a worker."""
    REF_CHECK = 0x88
    """due time, us (8) | a block ref's own key -> the key of the page that names the block: a
    reference that was written beside its page, not after it."""


class CascadeKind:
    """The end of a cascade row's key: what kind of thing was removed."""

    DATA: Final = b"d"
    """A data id: its pages go, its block references are marked deleted."""
    PARTS: Final = b"p"
    """A multipart version: its part lists go, each part's data id follows."""
    UPLOAD: Final = b"u"
    """A removed upload: its part rows go, each part's data id follows."""
    COMPLETED: Final = b"c"
    """A completed upload: its part rows go; data the version does not name follows."""
    FENCE: Final = b"f"
    """Data or an upload that was fenced: it is removed, or the fence is found void."""
    SETTLE: Final = b"s"
    """A version that one with blocks has removed: it goes once that one is sure to stay."""


STAMP_BYTES: Final = 26
SUFFIX_BYTES: Final[dict[int, int]] = {
    Table.OBJECT: STAMP_BYTES,
    Table.UPLOAD: 16,
    Table.PART: 2 + STAMP_BYTES,
    Table.PAGE: 8,
    Table.PART_LIST: 8,
    Table.BLOCK_REF: 16,
    Table.BURIED: STAMP_BYTES,
    Table.UNDECIDED: STAMP_BYTES,
}
"""How many last bytes of a row key the bloom filters leave out; 0 where not named."""

KEY_END: Final = b"\x00\x01"
_INVERT: Final = bytes(255 - byte for byte in range(256))
_OBJECT: Final = bytes((Table.OBJECT,))
_BURIED: Final = bytes((Table.BURIED,))
_BALLOT: Final = bytes((Table.BALLOT,))
_UNDECIDED: Final = bytes((Table.UNDECIDED,))


class Stamp(NamedTuple):
    """The place of a version among the versions of its key; the greatest is the current one."""

    clock: int
    """Hybrid logical clock, microseconds."""
    successor: int
    """0, or 1 + that of the version this one was decided on (ballots)."""
    id: VersionId

    @property
    def text(self) -> str:
        """As clients know it: a version's row is found by it, however many there are."""
        return _plain_stamp(self).hex()


def stamp_from_text(text: str) -> Stamp | None:
    """The stamp that has this `text`, or None."""
    try:
        plain = bytes.fromhex(text)
    except ValueError:
        return None
    if len(plain) != STAMP_BYTES or plain.hex() != text:
        return None
    return _stamp_from(plain)


def escape(name: bytes) -> bytes:
    """An object key in a form that keeps order inside a longer row key, without its end mark."""
    return name.replace(b"\x00", b"\x00\xff") if 0 in name else name


def unescape(escaped: bytes) -> bytes:
    return escaped.replace(b"\x00\xff", b"\x00") if 0 in escaped else escaped


def after_prefix(prefix: bytes) -> bytes:
    """The smallest byte string greater than every string that starts with `prefix`.

    `prefix` must hold a byte other than FF.
    """
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])


def in_bucket(table: Table, bucket: BucketId) -> bytes:
    """The common start of a bucket's rows in a table."""
    return bytes((table, bucket[0])) + bucket


def object_prefix(bucket: BucketId, name: bytes) -> bytes:
    """The common start of the versions of one object key; what the bloom filter hashes."""
    return bytes((Table.OBJECT, bucket[0])) + bucket + escape(name) + KEY_END


def object_row(prefix: bytes, stamp: Stamp) -> bytes:
    return prefix + _stamp_bytes(stamp)


def buried_row(object_row_key: bytes) -> bytes:
    """The BURIED row of an object row; also the prefix of one from that of the other."""
    return _BURIED + object_row_key[1:]


def object_row_of(buried_row_key: bytes) -> bytes:
    return _OBJECT + buried_row_key[1:]


def ballot_row(register: bytes) -> bytes:
    """The BALLOT row of a register: an object prefix, or an alias row's key."""
    return _BALLOT + register[1:]


def register_of(ballot_row_key: bytes) -> bytes | None:
    """The register of a BALLOT row; None of the row that stands for those forgotten. No bucket of
    partition 0 has a name's first byte as its own."""
    own = ballot_row_key[2:]
    if not own:
        return None
    is_object = own[0] == ballot_row_key[1]
    return (_OBJECT if is_object else bytes((Table.ALIAS,))) + ballot_row_key[1:]


def undecided_row(row_key: bytes) -> bytes:
    """The UNDECIDED row of a row that may be about to be written."""
    return _UNDECIDED + row_key[1:]


def _plain_stamp(stamp: Stamp) -> bytes:
    return stamp.clock.to_bytes(8, "big") + stamp.successor.to_bytes(2, "big") + stamp.id


def _stamp_bytes(stamp: Stamp) -> bytes:
    return _plain_stamp(stamp).translate(_INVERT)


def _stamp_from(plain: bytes) -> Stamp:
    return Stamp(
        int.from_bytes(plain[:8], "big"),
        int.from_bytes(plain[8:10], "big"),
        VersionId(plain[10:]),
    )


def stamp_of(row_key: bytes) -> Stamp:
    """The stamp at the end of an object or part row's key."""
    return _stamp_from(row_key[-STAMP_BYTES:].translate(_INVERT))


def object_name_of(row_key: bytes) -> bytes:
    """The object key inside an object row's key."""
    return unescape(row_key[34 : -STAMP_BYTES - 2])


def inline_row(bucket: BucketId, version: VersionId) -> bytes:
    return in_bucket(Table.INLINE, bucket) + version


def upload_row(bucket: BucketId, name: bytes, upload: VersionId) -> bytes:
    return in_bucket(Table.UPLOAD, bucket) + escape(name) + KEY_END + upload


def upload_name_of(row_key: bytes) -> bytes:
    return unescape(row_key[34:-18])


def upload_id_of(row_key: bytes) -> VersionId:
    return VersionId(row_key[-16:])


def parts_prefix(bucket: BucketId, upload: VersionId) -> bytes:
    return in_bucket(Table.PART, bucket) + upload


def part_row(bucket: BucketId, upload: VersionId, number: int, stamp: Stamp) -> bytes:
    return parts_prefix(bucket, upload) + number.to_bytes(2, "big") + _stamp_bytes(stamp)


def part_number_of(row_key: bytes) -> int:
    return int.from_bytes(row_key[-STAMP_BYTES - 2 : -STAMP_BYTES], "big")


def pages_prefix(bucket: BucketId, data: DataId) -> bytes:
    return in_bucket(Table.PAGE, bucket) + data


def page_row(bucket: BucketId, data: DataId, *, end: int) -> bytes:
    """The page whose last byte is at `end` - 1.

    Named by their end, so that the first row from `page_row(..., end=start + 1)` on is the page
    that holds byte `start`: a ranged read seeks without reading what is before it.
    """
    return pages_prefix(bucket, data) + end.to_bytes(8, "big")


def part_lists_prefix(bucket: BucketId, version: VersionId) -> bytes:
    return in_bucket(Table.PART_LIST, bucket) + version


def part_list_row(bucket: BucketId, version: VersionId, *, end: int) -> bytes:
    """The part list whose last part ends at byte `end` - 1 of the object; see `page_row`."""
    return part_lists_prefix(bucket, version) + end.to_bytes(8, "big")


def end_of_page(row_key: bytes) -> int:
    """The end offset in a page's or part list's key."""
    return int.from_bytes(row_key[-8:], "big")


def pending_row(bucket: BucketId, data: DataId) -> bytes:
    return in_bucket(Table.PENDING, bucket) + data


def counter_row(bucket: BucketId) -> bytes:
    return in_bucket(Table.COUNTER, bucket)


def block_refs_prefix(block: BlockHash) -> bytes:
    return bytes((Table.BLOCK_REF, block[0])) + block


def block_ref_row(block: BlockHash, data: DataId) -> bytes:
    return block_refs_prefix(block) + data


def ref_check_row(due_us: int, block_ref: bytes) -> bytes:
    """When a reference, given by its row's key, is to be looked at."""
    return local_row(Table.REF_CHECK, due_us.to_bytes(8, "big") + block_ref[2:])


def checked_ref(row_key: bytes) -> bytes:
    """The block ref's row key of a REF_CHECK row's key."""
    return bytes((Table.BLOCK_REF, row_key[10])) + row_key[10:]


def cascade_row(bucket: BucketId, removed: bytes, kind: bytes, due_us: int = 0) -> bytes:
    """`removed` is the 16-byte data, version or upload id; `kind` a `CascadeKind`."""
    return local_row(Table.CASCADE, due_us.to_bytes(8, "big") + bucket + removed + kind)


def cascade_of(row_key: bytes) -> tuple[BucketId, bytes, bytes]:
    """Bucket, removed id and kind of a cascade row's key."""
    return BucketId(row_key[10:42]), row_key[42:58], row_key[58:]


def cascade_due_us(row_key: bytes) -> int:
    return int.from_bytes(row_key[2:10], "big")


def everywhere_row(table: Table, own: bytes) -> bytes:
    """A row of a table that every node holds (bucket, alias, key, token)."""
    return bytes((table, 0)) + own


def local_row(table: Table, own: bytes) -> bytes:
    """A row of this node alone."""
    return bytes((table, 0)) + own
