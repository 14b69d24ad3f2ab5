"""What one incoming link may call: nothing, the operations, or all that a peer may.

A link begins as a stranger's. Its greeting, if that is accepted, makes it a peer's. A link made
with an invitation's secret may join, and nothing else.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from garage_lite.core.cluster.admission import Admission
from garage_lite.core.cluster.rpc import JSON_API, Handler, Request
from garage_lite.core.cluster.transport import Link
from garage_lite.core.errors import AccessDenied
from garage_lite.core.wire.greeting import Greeting, read_greeting

HELLO: Final = "mesh/hello"
JOIN: Final = "mesh/join"
ALARM: Final = "mesh/alarm"


class Door(Mapping[str, Handler]):
    """The handlers for one incoming link, as they are at each call."""

    def __init__(
        self,
        link: Link,
        network_key: bytes,
        handlers: Mapping[str, Handler],
        admission: Admission,
        welcome: Callable[[Link, Greeting], Awaitable[Any]],
        let_join: Callable[[Link], Awaitable[Any]],
    ) -> None:
        self._link = link
        self._handlers = handlers
        self._admission = admission
        self._welcome = welcome
        self._let_join = let_join
        self._invited = not hmac.compare_digest(link.network_key, network_key)
        self._is_peer = False

    def __getitem__(self, endpoint: str) -> Handler:
        if self._invited:
            return self._join if endpoint == JOIN else self._refuse
        if endpoint == HELLO:
            return self._greet
        if self._is_peer:
            return self._handlers[endpoint]
        return self._operate if endpoint == JSON_API else self._refuse

    def __iter__(self) -> Iterator[str]:
        return iter((HELLO, JSON_API))

    def __len__(self) -> int:
        return 2

    async def _greet(self, request: Request) -> Any:
        if self._is_peer:
            raise AccessDenied("this link was greeted already")
        answer = await self._welcome(self._link, read_greeting(request.payload))
        self._is_peer = True
        return answer

    async def _operate(self, request: Request) -> Any:
        self._admission.check_stranger(request.peer)
        return await self._handlers[JSON_API](request)

    async def _join(self, request: Request) -> Any:
        return await self._let_join(self._link)

    async def _refuse(self, request: Request) -> Any:
        self._admission.check(request.peer)
        raise AccessDenied("greet first")
