"""What a PUT or an UploadPart reads, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import Checksum
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.encryption import CustomerKey


class Body(Protocol):
    """The content of a request, decoded, whatever form it came in."""

    @property
    def size(self) -> int | None:
        """Decoded length, where the client announced it."""
        ...

    @property
    def digests(self) -> frozenset[str]:
        """What to compute besides MD5; names of `digests.DIGEST_BYTES`."""
        ...

    async def read(self) -> bytes:
        """The next chunk, at most 256 KiB as a rule; empty at the end.

        Raises BadContent or AccessDenied where the body is not what was announced or signed.
        """
        ...

    def finish(self, size: int, digests: Mapping[str, bytes]) -> Checksum | None:
        """Verify the whole; called once, after the end and before anything becomes visible.

        `digests` holds "MD5" too. Returns the additional checksum to store. Raises BadDigest.
        """
        ...


class PutRequest(NamedTuple):
    bucket: Bucket
    key: bytes
    body: Body
    headers: tuple[tuple[str, str], ...] = ()
    """As `ObjectMeta.headers`."""
    customer_key: CustomerKey | None = None
    guard: WriteCondition | None = None
