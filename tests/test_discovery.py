"""Discovery against small servers that behave as Consul and Kubernetes do."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from garage_lite.config import ConsulConfig, KubernetesConfig
from garage_lite.config.kubernetes import KubernetesApi, kubernetes_api
from garage_lite.core.errors import ConfigError
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.discovery import Advertisement
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.discovery import (
    ConsulDirectory,
    DirectoryFailed,
    Discovery,
    KubernetesDirectory,
)
from tests.core.cluster.mesh_world import address_of, full_mesh, nodes, until

NODE = NodeId(bytes(range(32)))
NAME = f"garage:{NODE[:8].hex()}"
OWN = Advertisement(NODE, "attic", TcpAddress("2001:db8::7", 3901))


class FakeServer:
    """Remembers what it was asked; answers what `answer` makes of a request."""

    def __init__(self, answer: Callable[[FakeServer, web.BaseRequest, Any], Any]) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self._answer = answer

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append((request.method, request.raw_path, body))
        self.headers.append(dict(request.headers))
        found = self._answer(self, request, body)
        if isinstance(found, web.Response):
            return found
        return web.json_response(found)


@asynccontextmanager
async def serving(
    answer: Callable[[FakeServer, web.BaseRequest, Any], Any], ssl: Any = None
) -> AsyncIterator[FakeServer]:
    fake = FakeServer(answer)
    runner = web.ServerRunner(web.Server(fake.serve))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl)
    await site.start()
    port = runner.addresses[0][1]
    fake.url = f"{'https' if ssl else 'http'}://127.0.0.1:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()


class Catalog:
    """What Consul keeps."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}

    def answer(self, fake: FakeServer, request: web.BaseRequest, body: Any) -> Any:
        path = request.path
        if path.endswith("catalog/register"):
            self.services[body["Service"]["ID"]] = {**body["Service"], "Node": body["Address"]}
        elif path.endswith("agent/service/register"):
            self.services[body["ID"]] = {**body, "Node": "127.0.0.1"}
        elif "deregister" in path:
            self.services.pop(body["ServiceID"] if body else path.rpartition("/")[2])
        else:
            return [
                {
                    "Address": service["Node"],
                    "ServiceAddress": service["Address"],
                    "ServicePort": service["Port"],
                    "ServiceMeta": service["Meta"],
                }
                for service in self.services.values()
            ]
        return True


@pytest.mark.parametrize("api", ["catalog", "agent"])
async def test_consul(api: str) -> None:
    catalog = Catalog()
    async with serving(catalog.answer) as fake:
        config = ConsulConfig(
            fake.url + "/",
            "garage lite",
            api=api,
            token="t0ken",
            tags=("dc=1",),
            meta=(("rack", "7"),),
            datacenters=("here", "there"),
        )
        directory = ConsulDirectory(config)
        await directory.publish(OWN)
        (service,) = catalog.services.values()
        assert service["ID"] == NAME
        assert service["Tags"] == ["advertised-by-garage", "attic", "dc=1"]
        assert service["Meta"] == {
            "rack": "7",
            "fr-deuxfleurs-garagehq-pubkey": NODE.hex(),
            "fr-deuxfleurs-garagehq-hostname": "attic",
        }
        found = await directory.nodes()
        assert {(peer.node, peer.address) for peer in found} == {(NODE, OWN.address)}
        assert [path for method, path, _ in fake.asked if method == "GET"] == [
            "/v1/catalog/service/garage%20lite?dc=here",
            "/v1/catalog/service/garage%20lite?dc=there",
        ]
        assert all(headers["X-Consul-Token"] == "t0ken" for headers in fake.headers)
        await directory.withdraw(NODE)
        assert not catalog.services
        assert await directory.nodes() == []


async def test_entries_of_others_are_skipped() -> None:
    meta = {"fr-deuxfleurs-garagehq-pubkey": NODE.hex()}
    entries = [
        {"Address": "10.0.0.1", "ServicePort": 1, "ServiceMeta": {}},
        {"Address": "10.0.0.1", "ServicePort": 0, "ServiceMeta": meta},
        {"Address": "10.0.0.1", "ServicePort": 3901, "ServiceMeta": {**meta, "x": 1}},
        {"Address": "a b", "ServicePort": 3901, "ServiceMeta": meta},
        {"Address": "10.0.0.1", "ServicePort": 3901, "ServiceMeta": None},
        7,
    ]
    async with serving(lambda *_: entries) as fake:
        directory = ConsulDirectory(ConsulConfig(fake.url, "garage"))
        assert [str(peer.address) for peer in await directory.nodes()] == ["10.0.0.1:3901"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (web.Response(status=403, text="ACL"), DirectoryFailed),
        (web.Response(status=302, headers={"Location": "http://192.0.2.1/"}), DirectoryFailed),
        (web.Response(text="not json"), DirectoryFailed),
        (web.Response(body=b" " * (1 << 20) + b"[]"), DirectoryFailed),
        (web.Response(text="{}"), WireDamaged),
    ],
)
async def test_a_directory_that_fails_says_how(answer: web.Response, error: type) -> None:
    async with serving(lambda *_: answer) as fake:
        directory = ConsulDirectory(ConsulConfig(fake.url, "garage"))
        with pytest.raises(error):
            await directory.nodes()


async def test_nobody_there() -> None:
    with pytest.raises(DirectoryFailed, match="127.0.0.1:1"):
        await ConsulDirectory(ConsulConfig("127.0.0.1:1", "garage")).nodes()


def certificate(tmp_path: Path, name: str) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    paths = str(tmp_path / f"{name}.crt"), str(tmp_path / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "3650", "-subj", f"/CN={name}", "-addext",
         "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return paths


async def test_consul_over_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    import ssl

    server, client = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client[0])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*server)
    async with serving(Catalog().answer, context) as fake:
        known: dict[str, Any] = {"client_cert": client[0], "client_key": client[1]}
        trusting: list[dict[str, Any]] = [{"ca_cert": server[0]}, {"tls_skip_verify": True}]
        for good in trusting:
            config = ConsulConfig(fake.url, "garage", **known, **good)
            assert await ConsulDirectory(config).nodes() == []
        with pytest.raises(DirectoryFailed):
            await ConsulDirectory(ConsulConfig(fake.url, "garage", **known)).nodes()
        with pytest.raises(DirectoryFailed):
            await ConsulDirectory(ConsulConfig(fake.url, "garage", ca_cert=server[0])).nodes()


def test_wrong_certificates_stop_the_start(tmp_path: Path) -> None:
    for wrong in (
        ConsulConfig("http://127.0.0.1:1", "garage", client_cert="/nowhere"),
        ConsulConfig("http://127.0.0.1:1", "garage", ca_cert=str(tmp_path / "nothing.crt")),
        ConsulConfig("http://127.0.0.1:1", "g", client_cert="/nowhere", client_key="/nowhere"),
    ):
        with pytest.raises(ConfigError):
            ConsulDirectory(wrong)


class Objects:
    """What Kubernetes keeps: it refuses to replace what changed meanwhile."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.crds = 0
        self.version = 0

    def answer(self, fake: FakeServer, request: web.BaseRequest, body: Any) -> Any:
        if request.method == "PATCH":
            assert request.content_type == "application/apply-patch+yaml"
            assert request.query["fieldManager"]
            assert body["metadata"]["name"] == "garagenodes.deuxfleurs.fr"
            self.crds += 1
            return {}
        assert request.path.startswith("/apis/deuxfleurs.fr/v1/namespaces/default/garagenodes")
        name = request.path.partition("garagenodes/")[2]
        if request.method in ("PUT", "POST"):
            name = body["metadata"]["name"]
            before = self.objects.get(name, {"metadata": {}})["metadata"].get("resourceVersion")
            if body["metadata"].get("resourceVersion") != before:
                return web.Response(status=409)
            self.version += 1
            body["metadata"]["resourceVersion"] = str(self.version)
            self.objects[name] = body
            return body
        if name:
            return self.objects.get(name, web.Response(status=404))
        assert request.query["labelSelector"] == "garage.deuxfleurs.fr/service=garage"
        return {"items": list(self.objects.values())}


@pytest.mark.parametrize("skip_crd", [False, True])
async def test_kubernetes(skip_crd: bool, tmp_path: Path) -> None:
    objects, token = Objects(), tmp_path / "token"
    token.write_text("first\n")
    async with serving(objects.answer) as fake:
        api = KubernetesApi(fake.url, str(token), None)
        directory = KubernetesDirectory(KubernetesConfig("default", "garage", skip_crd), api)
        for _ in range(2):
            await directory.publish(OWN)
        token.write_text("second\n")
        assert [(p.node, p.address) for p in await directory.nodes()] == [(NODE, OWN.address)]
        assert objects.crds == (0 if skip_crd else 1)
        (shown,) = objects.objects.values()
        assert shown["spec"] == {"hostname": "attic", "address": "2001:db8::7", "port": 3901}
        assert shown["metadata"]["labels"] == {"garage.deuxfleurs.fr/service": "garage"}
        assert objects.version == 2, "replaced, not made twice"
        assert fake.headers[0]["Authorization"] == "Bearer first"
        assert fake.headers[-1]["Authorization"] == "Bearer second"
        objects.objects["what"] = {"metadata": {"name": "what"}, "spec": {}}
        assert len(await directory.nodes()) == 1


def test_the_api_of_a_pod() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert kubernetes_api(environ).url == "https://[fd00::1]:443"
    with pytest.raises(ConfigError, match="in a pod only"):
        kubernetes_api({})


async def test_nodes_find_each_other_by_consul() -> None:
    catalog = Catalog()
    async with serving(catalog.answer) as fake, nodes(3) as three:
        discoveries = [
            Discovery(node.running, [ConsulDirectory(ConsulConfig(fake.url, "garage"))], "h")
            for node in three
        ]
        for discovery in discoveries:
            discovery.start()
            await until(lambda: len(fake.asked) >= 2)
            await asyncio.sleep(0.05)
        await full_mesh(three)
        assert {s["Port"] for s in catalog.services.values()} == {
            getattr(address_of(node), "port", None) for node in three
        }
        for discovery in discoveries:
            await discovery.stop()
        assert not catalog.services


async def test_a_failing_directory_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes(1) as (a,):
        failing = ConsulDirectory(ConsulConfig("127.0.0.1:1", "garage"))
        discovery = Discovery(a.running, [failing, failing], "attic")
        discovery.start()
        await until(lambda: "Discovery fails" in caplog.text)
        await discovery.stop()
        assert caplog.text.count("Discovery fails") == 1
