"""Requests signed with AWS Signature Version 4, by the standard library alone.

A second implementation, written from AWS's description and not from the server's code, for the
tests and benchmarks that need a client whose own cost is small.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

UNSIGNED = "UNSIGNED-PAYLOAD"


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Signer:
    host: str
    access_key: str
    secret_key: str
    region: str

    def sign(
        self,
        method: str,
        path: str,
        query: str = "",
        payload: str = UNSIGNED,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """All headers of a request. Path and query as they will be sent: escaped, sorted."""
        now = datetime.datetime.now(datetime.UTC)
        day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "host": self.host,
            "x-amz-content-sha256": payload,
            "x-amz-date": moment,
            **(extra or {}),
        }
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = "\n".join([method, path, query, lines, names, payload])
        scope = f"{day}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.new(
            self.signing_key(day),
            "\n".join(["AWS4-HMAC-SHA256", moment, scope, digest]).encode(),
            hashlib.sha256,
        ).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def signing_key(self, day: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for word in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        return key


class Client:
    """One kept-alive connection to one endpoint. Raises OSError or HTTPException when it breaks;
    the next call opens a new one."""

    def __init__(self, endpoint: str, signer: Signer, timeout: float = 60) -> None:
        self.signer = signer
        self.connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=timeout)

    def call(
        self,
        method: str,
        bucket: str,
        key: str = "",
        query: str = "",
        body: bytes = b"",
        extra: Mapping[str, str] | None = None,
    ) -> Reply:
        path = quote(f"/{bucket}/{key}" if key else f"/{bucket}")
        payload = hashlib.sha256(body).hexdigest()
        headers = self.signer.sign(method, path, query, payload, extra)
        try:
            target = f"{path}?{query}" if query else path
            self.connection.request(method, target, body=body or None, headers=headers)
            response = self.connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def close(self) -> None:
        self.connection.close()
