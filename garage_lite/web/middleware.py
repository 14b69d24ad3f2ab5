"""What surrounds every S3 request: its id, its errors as XML, its line in the log.

One `Endpoint` serves a listening address; it takes an exchange, asks `s3/dispatch.py` for the
answer and writes it. Nothing a request does gets past it but cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from itertools import chain
from typing import Final

from garage_lite.core.errors import NodeError
from garage_lite.core.limits import HEADER_BYTES_MAX
from garage_lite.web.exchange import Answered, Exchange
from garage_lite.web.reply import Reply, send
from garage_lite.web.s3.context import S3Context
from garage_lite.web.s3.dispatch import answer
from garage_lite.web.s3.errors import INTERNAL_MESSAGE, S3Error, as_s3_error, error_xml
from garage_lite.web.s3.headers import http_date
from garage_lite.web.s3.request import S3Request
from garage_lite.web.s3.signature import Verifier

log: Final = logging.getLogger(__name__)
SERVER: Final = "garage-lite"
_ID_MASK: Final = (1 << 64) - 1

_SECRET_PARAMETERS = re.compile(r"(x-amz-[^=&]*|Signature|AWSAccessKeyId)=[^&]*", re.IGNORECASE)


class Endpoint:
    """Serves S3 requests one by one, many at once."""

    def __init__(self, context: S3Context) -> None:
        self._context = context
        self._log_event = context.log_event or log_event
        self._verifier = Verifier(context.settings.region, context.directory.key)
        self.draining = False
        """Once set, every answer ends its connection."""
        self.in_flight = 0
        self._idle: asyncio.Event | None = None
        self._requests = int.from_bytes(context.entropy.token(8))
        """The last request's id: counted from a random start, so that none comes twice."""

    async def wait_idle(self) -> None:
        """Until no request is being served."""
        if self.in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()

    async def serve(self, exchange: Exchange) -> Answered:
        """Answer one request. The connection's fate is in what is returned."""
        started_us = self._context.clock.monotonic_us()
        self._requests += 1
        request_id = f"{self._requests & _ID_MASK:016X}"
        self.in_flight += 1
        request: S3Request | None = None
        status, sent, keep_alive, note = 0, 0, False, ""
        try:
            try:
                check_header_size(exchange)
                request = S3Request(
                    exchange.method,
                    exchange.target,
                    exchange.headers,
                    self._context.settings.root_domain,
                )
                reply = await answer(
                    self._context, self._verifier, request, exchange.payload, exchange.go_on
                )
            except Exception as error:
                reply = self.error_reply(error, request, exchange, request_id)
            status, note = reply.status, reply.error_code
            keep_alive = not self.draining and not reply.close and exchange.may_keep_alive()
            sent = await send(
                exchange.protocol,
                reply,
                keep_alive=keep_alive,
                common=self.common_headers(request_id),
                with_body=exchange.method != "HEAD",
            )
        except ConnectionError:
            keep_alive, note = False, "client gone"
        except Exception:
            keep_alive, note = False, "broken off"
            log.exception("request %s was broken off", request_id)
        finally:
            self.in_flight -= 1
            if self._idle is not None and not self.in_flight:
                self._idle.set()
            if log.isEnabledFor(logging.INFO):
                took_us = self._context.clock.monotonic_us() - started_us
                key = request.key_id if request is not None else "-"
                self._log_event(
                    self._context.clock.now_us(),
                    log.name,
                    request_line,
                    exchange.method,
                    exchange.target,
                    status,
                    sent,
                    took_us,
                    key,
                    request_id,
                    note,
                )
        return Answered(keep_alive)

    def common_headers(self, request_id: str) -> str:
        """The header lines of every answer."""
        return (
            f"x-amz-request-id: {request_id}\r\nx-amz-id-2: {self._context.settings.host_id}\r\n"
            f"Server: {SERVER}\r\nDate: {http_date(self._context.clock.now_us() // 1_000_000)}\r\n"
        )

    def error_reply(
        self, error: Exception, request: S3Request | None, exchange: Exchange, request_id: str
    ) -> Reply:
        """What the client is told; the log is told more where the fault is ours."""
        s3_error = as_s3_error(error)
        if isinstance(error, NodeError):
            log.warning("request %s: %s: %s", request_id, type(error).__name__, error)
        elif s3_error.message == INTERNAL_MESSAGE:
            log.error("request %s failed", request_id, exc_info=error)
        resource = exchange.target.partition("?")[0]
        s3_error.details = (*s3_error.details, *_names(s3_error, request))
        body = error_xml(s3_error, resource, request_id, self._context.settings.host_id)
        headers = [("Content-Type", "application/xml"), *s3_error.headers]
        if s3_error.status == 416:
            size = dict(s3_error.details).get("ActualObjectSize", "*")
            headers.append(("Content-Range", f"bytes */{size}"))
        if any(name == "Region" for name, _ in s3_error.details):
            headers.append(("x-amz-bucket-region", self._context.settings.region))
        # Who has not sent all of his body may be about to send it for ever.
        close = not exchange.payload.is_eof()
        return Reply(s3_error.status, headers, body, error_code=s3_error.code, close=close)


def check_header_size(exchange: Exchange) -> None:
    """Raises RequestHeaderSectionTooLarge."""
    raw_headers = exchange.message.raw_headers
    size = sum(map(len, chain.from_iterable(raw_headers))) + 4 * len(raw_headers)
    if size > HEADER_BYTES_MAX:
        raise S3Error(
            "RequestHeaderSectionTooLarge",
            "Your request header section exceeds the maximum allowed size.",
            ("MaxSizeAllowed", str(HEADER_BYTES_MAX)),
        )


def _names(error: S3Error, request: S3Request | None) -> tuple[tuple[str, str], ...]:
    """The bucket or key that an error is about, named as AWS does."""
    if request is None:
        return ()
    if error.code in ("NoSuchKey", "NoSuchVersion"):
        return (("Key", request.key.decode()),)
    if error.code.startswith(("NoSuchBucket", "Bucket")):
        return (("BucketName", request.bucket_name or ""),)
    return ()


def request_line(
    method: str,
    target: str,
    status: int,
    sent: int,
    took_us: int,
    key: str,
    request_id: str,
    note: str,
) -> str:
    """What the log says of one request. `sent`: bytes of the answer's body; `note`: what went
    wrong, or "". Signatures and keys in the target are left out."""
    if "?" in target:
        target = _SECRET_PARAMETERS.sub(r"\1=...", target)
    if not target.isascii():
        target = target.encode("ascii", "backslashreplace").decode()
    ended = f" {note}" if note else ""
    return (
        f"{method} {target} {status} {sent} bytes {took_us / 1000:.1f} ms key {key}"
        f" request {request_id}{ended}"
    )


def log_event(now_us: int, name: str, text: Callable[..., str], *facts: object) -> None:
    """A line at INFO, the ordinary way: it has the time at which it is logged."""
    logging.getLogger(name).info("%s", text(*facts))
