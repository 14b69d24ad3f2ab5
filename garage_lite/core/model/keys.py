"""Access keys: rows that every node holds and reads locally."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.crdt import Lww, LwwMap

TAG = 1


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One access key. Its rights on buckets are in the buckets' rows.

    `local_aliases`: bucket names that only this key sees -> bucket id as hex.
    """

    id: str
    secret: str = field(repr=False)
    created_ms: int
    deleted: bool = False
    name: Lww[str] = Lww(0, "")
    expiration_ms: Lww[int | None] = Lww(0, None)
    create_bucket: Lww[bool] = Lww(0, False)
    local_aliases: LwwMap[str] = LwwMap()

    def expired(self, now_ms: int) -> bool:
        limit = self.expiration_ms.value
        return limit is not None and now_ms >= limit

    def encode(self) -> bytes:
        registers = [self.name.pack(), self.expiration_ms.pack(), self.create_bucket.pack()]
        secret = "" if self.deleted else self.secret
        fields = [secret, self.created_ms, self.deleted, *registers, self.local_aliases.pack()]
        return encode(TAG, fields)

    @classmethod
    @row_decoder
    def decode(cls, key_id: str, data: bytes) -> AccessKey:
        secret, created, deleted, name, expiration, create, local = decode(data, TAG)
        return cls(
            key_id,
            secret,
            created,
            deleted,
            Lww.unpack(name),
            Lww.unpack(expiration),
            Lww.unpack(create),
            LwwMap.unpack(local),
        )

    def merge(self, other: AccessKey) -> AccessKey:
        """Deleted absorbs (and forgets the secret); registers by their own rule."""
        base = max(self, other, key=lambda row: (row.secret, -row.created_ms))
        deleted = self.deleted or other.deleted
        return replace(
            base,
            secret="" if deleted else base.secret,
            created_ms=min(self.created_ms, other.created_ms),
            deleted=deleted,
            name=self.name.merge(other.name),
            expiration_ms=self.expiration_ms.merge(other.expiration_ms),
            create_bucket=self.create_bucket.merge(other.create_bucket),
            local_aliases=self.local_aliases.merge(other.local_aliases),
        )
