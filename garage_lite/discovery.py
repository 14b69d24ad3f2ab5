"""Finding peers by Consul or Kubernetes, over HTTP: beside the node, for core speaks no HTTP.

Once a minute this node's address is published and the others' are read and given to the mesh,
which dials them. A directory that fails is complained of and asked again; the mesh goes on with
what it knows. What is asked is core/wire/discovery.py's. aiohttp is imported when there is a
directory to ask.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from garage_lite.config import Config, ConsulConfig, KubernetesConfig
from garage_lite.config.kubernetes import KubernetesApi, kubernetes_api
from garage_lite.core.cluster.mesh import Mesh
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import ConfigError, NodeError
from garage_lite.core.ids import NodeId
from garage_lite.core.limits import KIB, MIB
from garage_lite.core.ports import OpenMode
from garage_lite.core.wire.address import Peer
from garage_lite.core.wire.discovery import (
    Advertisement,
    Consul,
    HttpCall,
    Kubernetes,
    make_crd,
    read_consul,
    read_kubernetes,
)

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 60.0
CALL_SECONDS: Final = 10.0
STOP_SECONDS: Final = 3.0
ANSWER_BYTES_MAX: Final = MIB
TOKEN_BYTES_MAX: Final = 64 * KIB


class DirectoryFailed(NodeError):
    """Consul or Kubernetes could not be asked; the message says why."""


class PeerDirectory(Protocol):
    """A place where nodes say where they are."""

    async def nodes(self) -> list[Peer]:
        """Raises DirectoryFailed, WireDamaged."""
        ...

    async def publish(self, own: Advertisement) -> None:
        """Raises DirectoryFailed."""
        ...

    async def withdraw(self, node: NodeId) -> None:
        """This node goes. Raises DirectoryFailed."""
        ...


@dataclass(frozen=True)
class HttpClient:
    """Calls to one server. Raises DirectoryFailed, whatever goes wrong."""

    url: str
    context: ssl.SSLContext | None = None
    headers: Callable[[], dict[str, str]] = dict

    async def call(self, wanted: HttpCall, may_miss: bool = False) -> Any:
        """The answer's JSON, None if it is empty; None too for 404 if that `may_miss`."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout, headers=self.headers()) as session:
                return await self._call(session, wanted, may_miss)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise DirectoryFailed(f"{self.url}: {str(error) or type(error).__name__}") from error

    async def _call(self, session: ClientSession, wanted: HttpCall, may_miss: bool) -> Any:
        body = None if wanted.body is None else json.dumps(wanted.body).encode()
        headers = {} if body is None else {"Content-Type": wanted.content_type}
        async with session.request(
            wanted.method,
            self.url + wanted.path,
            data=body,
            headers=headers,
            ssl=True if self.context is None else self.context,
            allow_redirects=False,
        ) as response:
            answer = await response.content.read(ANSWER_BYTES_MAX + 1)
            while len(answer) <= ANSWER_BYTES_MAX and (more := await response.content.readany()):
                answer += more
            if response.status == 404 and may_miss:
                return None
            if not 200 <= response.status < 300:
                said = answer[:200].decode("utf-8", "replace")
                raise DirectoryFailed(f"{self.url}{wanted.path}: {response.status} {said}")
            if len(answer) > ANSWER_BYTES_MAX:
                raise DirectoryFailed(f"{self.url}{wanted.path}: the answer is too long")
            return json.loads(answer) if answer.strip() else None


class ConsulDirectory:
    """Consul's catalogue, written by its catalogue or its agent API."""

    def __init__(self, config: ConsulConfig) -> None:
        """Raises ConfigError for certificates that can't be used."""
        self._consul = Consul(
            config.service_name,
            config.api == "agent",
            config.tags,
            dict(config.meta),
            config.datacenters,
        )
        url = config.consul_http_addr.rstrip("/")
        token = {} if config.token is None else {"X-Consul-Token": config.token}
        self._http = HttpClient(
            url if "://" in url else f"http://{url}",
            _tls(config.ca_cert, config.client_cert, config.client_key, config.tls_skip_verify),
            lambda: dict(token),
        )

    async def nodes(self) -> list[Peer]:
        answers = [await self._http.call(query) for query in self._consul.queries()]
        return [peer for answer in answers for peer in read_consul(answer)]

    async def publish(self, own: Advertisement) -> None:
        await self._http.call(self._consul.register(own))

    async def withdraw(self, node: NodeId) -> None:
        await self._http.call(self._consul.deregister(node))


class KubernetesDirectory:
    """Objects of the kind GarageNode, which it introduces itself unless told not to."""

    def __init__(self, config: KubernetesConfig, api: KubernetesApi) -> None:
        """Raises ConfigError for a certificate that can't be used."""
        self._kubernetes = Kubernetes(config.namespace, config.service_name)
        self._kind_is_known = config.skip_crd
        self._http = HttpClient(api.url, _tls(api.ca_file), lambda: _bearer(api.token_file))

    async def nodes(self) -> list[Peer]:
        return read_kubernetes(await self._http.call(self._kubernetes.query()))

    async def publish(self, own: Advertisement) -> None:
        if not self._kind_is_known:
            await self._http.call(make_crd())
            self._kind_is_known = True
        found = await self._http.call(self._kubernetes.lookup(own.node), may_miss=True)
        await self._http.call(self._kubernetes.publish(own, found))

    async def withdraw(self, node: NodeId) -> None:
        """As Garage: the object stays, and is replaced when the node comes back."""


def _bearer(token_file: str | None) -> dict[str, str]:
    """Raises OSError, ValueError."""
    if token_file is None:
        return {}
    file = LocalFiles().open(token_file, OpenMode.READ)
    try:
        token = file.read_at(0, TOKEN_BYTES_MAX).decode("ascii").strip()
    finally:
        file.close()
    return {"Authorization": f"Bearer {token}"}


def _tls(
    ca: str | None, certificate: str | None = None, key: str | None = None, skip: bool = False
) -> ssl.SSLContext | None:
    """None for the system's defaults. Raises ConfigError."""
    if (certificate is None) != (key is None):
        raise ConfigError("[consul_discovery]: client_cert and client_key go together")
    if ca is None and certificate is None and not skip:
        return None
    try:
        context = ssl.create_default_context()
        if skip:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif ca is not None:
            context.load_verify_locations(ca)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificates for discovery can't be used: {error}") from error
    return context


def directories(config: Config) -> list[PeerDirectory]:
    """Those of the configuration. Raises ConfigError."""
    found: list[PeerDirectory] = []
    if config.consul_discovery is not None:
        found.append(ConsulDirectory(config.consul_discovery))
    if config.kubernetes_discovery is not None:
        found.append(KubernetesDirectory(config.kubernetes_discovery, kubernetes_api()))
    return found


class Discovery:
    """Asks the directories as long as the node runs."""

    def __init__(self, mesh: Mesh, directories: list[PeerDirectory], hostname: str) -> None:
        self._mesh = mesh
        self._directories = directories
        self._hostname = hostname
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._directories:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Says goodbye, if that does not take long."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for directory in self._directories:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await directory.withdraw(self._mesh.key.node)
            except (NodeError, TimeoutError) as error:
                log.warning("Can't withdraw from discovery: %s", error)

    async def _run(self) -> None:
        while True:
            for directory in self._directories:
                try:
                    await self._ask(directory)
                except NodeError as error:
                    self._mesh.complaints.say(f"Discovery fails: {error}")
            await asyncio.sleep(ROUND_SECONDS)

    async def _ask(self, directory: PeerDirectory) -> None:
        own = self._mesh.published_addresses()
        if own:
            key = self._mesh.key.node
            await directory.publish(Advertisement(key, self._hostname, own[0]))
        for peer in await directory.nodes():
            self._mesh.discovered(peer)
