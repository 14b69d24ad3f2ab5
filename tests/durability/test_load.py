"""The checker itself: it must see what a node that loses or revives something would show."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.durability.load import ABSENT, Owed, digest, settle
from tests.sigv4 import Client, Signer

STORED = {"/b/kept": b"kept", "/b/revived": b"old", "/b/changed": b"other"}


class Shelf(http.server.BaseHTTPRequestHandler):
    """A server that holds STORED and breaks on one key."""

    def do_GET(self) -> None:
        body = STORED.get(self.path)
        broken = self.path == "/b/broken"
        self.send_response(500 if broken else 404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def client() -> Iterator[Client]:
    with http.server.HTTPServer(("127.0.0.1", 0), Shelf) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"127.0.0.1:{server.server_port}"
        client = Client(f"http://{endpoint}", Signer(endpoint, "GK", "secret", "garage"))
        yield client
        client.close()
        server.shutdown()
        thread.join()


def test_the_checker_sees_what_is_wrong(client: Client) -> None:
    owed = {
        "kept": Owed({digest(b"kept")}),
        "gone": Owed({ABSENT}),
        "unanswered": Owed({ABSENT, digest(b"new")}),
        "lost": Owed({digest(b"lost")}),
        "revived": Owed({ABSENT}),
        "changed": Owed({digest(b"mine")}),
        "broken": Owed({ABSENT}),
    }
    wrong = settle(client, "b", owed)
    assert [line.split(":")[0] for line in wrong] == ["lost", "revived", "changed", "broken"]
    assert owed["unanswered"].states == {ABSENT}, "what it held once it must hold from then on"
