"""What the log says of a request: enough to find it again, no secret, nothing a client forged."""

from __future__ import annotations

import pytest

from garage_lite.web.middleware import request_line


def line(target: str, note: str = "") -> str:
    return request_line("GET", target, 200, 5, 1_250, "GK1", "00FF", note)


def test_the_line_of_a_request() -> None:
    assert line("/b/k") == "GET /b/k 200 5 bytes 1.2 ms key GK1 request 00FF"
    assert line("/b/k", "client gone").endswith("request 00FF client gone")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/b/k?x-id=GetObject", "/b/k?x-id=GetObject"),
        ("/b/k?X-Amz-Signature=5ec4e7&a=b", "/b/k?X-Amz-Signature=...&a=b"),
        ("/b/k?x-amz-security-token=5ec4e7", "/b/k?x-amz-security-token=..."),
        ("/b/k?Signature=5ec4e7&AWSAccessKeyId=GK", "/b/k?Signature=...&AWSAccessKeyId=..."),
        ("/b/é?é", "/b/\\xe9?\\xe9"),
        ("/b/\udcff", "/b/\\udcff"),
    ],
)
def test_targets_are_shown_without_secrets_and_in_ascii(target: str, shown: str) -> None:
    assert line(target).split()[1] == shown
