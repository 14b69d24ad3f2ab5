"""A mixed load that remembers what the server owes it.

Each writer owns its keys, so that what a key may hold is known exactly: its last acknowledged
state or, while an operation on it was never answered, the state that operation was to make.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.sigv4 import Client, Reply

ABSENT = "absent"
PART_BYTES = 5 * 2**20
SIZES = (0, 90, 2500, 3073, 60_000, 1_200_000)


@dataclass
class Owed:
    """What a key may hold: digests of content, or ABSENT."""

    states: set[str] = field(default_factory=lambda: {ABSENT})


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Writer(threading.Thread):
    """Works on its own keys until told to stop or until the server is gone."""

    def __init__(self, name: str, client: Client, bucket: str, owed: dict[str, Owed]) -> None:
        super().__init__(name=name)
        self.client, self.bucket, self.owed = client, bucket, owed
        self.stopping = threading.Event()
        self.random = random.Random(name)
        self.acknowledged = 0
        self.refused: Reply | None = None
        """An answer that a healthy server never gives."""

    def run(self) -> None:
        keys = sorted(self.owed)
        try:
            while not self.stopping.is_set():
                self._step(self.random.choice(keys))
        except (OSError, http.client.HTTPException):
            pass  # killed: what was in flight stays owed both ways
        finally:
            self.client.close()

    def _step(self, key: str) -> None:
        kind = self.random.random()
        if kind < 0.25:
            self._change(key, ABSENT, lambda: [self._call("DELETE", key)])
        elif kind < 0.28:
            parts = [self._body(PART_BYTES), self._body(1000)]
            self._change(key, digest(b"".join(parts)), lambda: self._multipart(key, parts))
        else:
            body = self._body(self.random.choice(SIZES))
            self._change(key, digest(body), lambda: [self._call("PUT", key, body=body)])

    def _change(self, key: str, state: str, act: Callable[[], list[Reply]]) -> None:
        """Owe both states while the operation runs, one once it is acknowledged."""
        self.owed[key].states.add(state)
        for reply in act():
            if reply.status not in (200, 204):
                self.refused = reply
                self.stopping.set()
                return
        self.owed[key].states = {state}
        self.acknowledged += 1

    def _call(self, method: str, key: str, query: str = "", body: bytes = b"") -> Reply:
        return self.client.call(method, self.bucket, key, query, body)

    def _multipart(self, key: str, parts: list[bytes]) -> list[Reply]:
        begun = self._call("POST", key, "uploads=")
        found = re.search(rb"<UploadId>([^<]+)<", begun.body)
        if found is None:
            return [begun._replace(status=500)]
        upload = quote(found[1].decode(), safe="")
        replies, document = [begun], ""
        for number, part in enumerate(parts, 1):
            reply = self._call("PUT", key, f"partNumber={number}&uploadId={upload}", part)
            replies.append(reply)
            etag = reply.headers.get("etag", "")
            document += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        complete = f"<CompleteMultipartUpload>{document}</CompleteMultipartUpload>"
        replies.append(self._call("POST", key, f"uploadId={upload}", complete.encode()))
        return replies

    def _body(self, size: int) -> bytes:
        return self.random.randbytes(size)


def settle(client: Client, bucket: str, owed: dict[str, Owed]) -> list[str]:
    """Read every key; what it holds becomes what is owed. Returns what is wrong, in words."""
    wrong = []
    for key, debt in owed.items():
        reply = client.call("GET", bucket, key)
        if reply.status == 200:
            state = digest(reply.body)
        elif reply.status == 404:
            state = ABSENT
        else:
            wrong.append(f"{key}: answered {reply.status} {reply.body[:200]!r}")
            continue
        if state not in debt.states:
            wrong.append(f"{key}: holds {state}, owed {sorted(debt.states)}")
        debt.states = {state}
    return wrong


def listed(client: Client, bucket: str) -> list[str]:
    """All keys, page by page."""
    keys: list[str] = []
    query = "list-type=2&max-keys=100"
    while True:
        after = f"&start-after={quote(keys[-1], safe='')}" if keys else ""
        reply = client.call("GET", bucket, "", query + after)
        assert reply.status == 200, reply
        keys += [key.decode() for key in re.findall(rb"<Key>([^<]+)</Key>", reply.body)]
        if b"<IsTruncated>true<" not in reply.body:
            return keys
