"""How nodes find each other by Consul or Kubernetes, as Garage does: what to ask, what to tell.

Requests are described, answers taken apart; who sends them is garage_lite/discovery.py. Names,
paths and members are those of Garage 2.5, so that its permissions and service definitions fit.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.peering import PEERS_MAX, read_address

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
_PREFIX: Final = "fr-deuxfleurs-garagehq"
_GROUP: Final = "deuxfleurs.fr"
_CRD: Final = f"garagenodes.{_GROUP}"


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request; the path begins with a slash and may hold a query."""

    method: str
    path: str
    body: Any = None
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Advertisement:
    """What a node tells of itself."""

    node: NodeId
    hostname: str
    address: TcpAddress


@dataclass(frozen=True, slots=True)
class Consul:
    """Garage's [consul_discovery], as far as it shapes requests."""

    service_name: str
    by_agent: bool = False
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    datacenters: tuple[str, ...] = ()

    def queries(self) -> list[HttpCall]:
        """One for each datacenter."""
        path = f"/v1/catalog/service/{quote(self.service_name, safe='')}"
        centers = [f"?{urlencode({'dc': name})}" for name in self.datacenters] or [""]
        return [HttpCall("GET", path + center) for center in centers]

    def register(self, own: Advertisement) -> HttpCall:
        name = _consul_name(own.node)
        service = {
            "ID": name,
            "Tags": ["advertised-by-garage", own.hostname, *self.tags],
            "Meta": {
                **self.meta,
                f"{_PREFIX}-pubkey": own.node.hex(),
                f"{_PREFIX}-hostname": own.hostname,
            },
            "Address": own.address.host,
            "Port": own.address.port,
        }
        if self.by_agent:
            path = "/v1/agent/service/register?replace-existing-checks"
            return HttpCall("PUT", path, {**service, "Name": self.service_name})
        service["Service"] = self.service_name
        entry = {"Node": name, "Address": own.address.host, "Service": service}
        return HttpCall("PUT", "/v1/catalog/register", entry)

    def deregister(self, node: NodeId) -> HttpCall:
        name = _consul_name(node)
        if self.by_agent:
            return HttpCall("PUT", f"/v1/agent/service/deregister/{quote(name)}")
        return HttpCall("PUT", "/v1/catalog/deregister", {"Node": name, "ServiceID": name})


def _consul_name(node: NodeId) -> str:
    return f"garage:{node[:8].hex()}"


def read_consul(answer: Any) -> list[Peer]:
    """The nodes of a catalogue; entries of others are skipped. WireDamaged if it is none."""
    return _peers(answer, _read_consul_entry)


def _read_consul_entry(entry: Any) -> Peer | None:
    match entry:
        case {"Address": str(host), "ServicePort": int(port), "ServiceMeta": {**meta}}:
            own = entry.get("ServiceAddress")
            return _peer(meta.get(f"{_PREFIX}-pubkey"), own or host, port)
    return None


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Garage's [kubernetes_discovery]."""

    namespace: str
    service_name: str

    @property
    def _path(self) -> str:
        return f"/apis/{_GROUP}/v1/namespaces/{quote(self.namespace, safe='')}/garagenodes"

    def query(self) -> HttpCall:
        selector = {"labelSelector": f"garage.{_GROUP}/service={self.service_name}"}
        return HttpCall("GET", f"{self._path}?{urlencode(selector)}")

    def lookup(self, node: NodeId) -> HttpCall:
        """This node's own object, which may not be there."""
        return HttpCall("GET", f"{self._path}/{node.hex()}")

    def publish(self, own: Advertisement, found: Any) -> HttpCall:
        """Replace the object that `lookup` found, or make it (`found` is None)."""
        metadata: dict[str, Any] = {
            "name": own.node.hex(),
            "namespace": self.namespace,
            "labels": {f"garage.{_GROUP}/service": self.service_name},
        }
        shown = {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "GarageNode",
            "metadata": metadata,
            "spec": {
                "hostname": own.hostname,
                "address": own.address.host,
                "port": own.address.port,
            },
        }
        match found:
            case {"metadata": {"resourceVersion": str(version)}}:
                metadata["resourceVersion"] = version
                return HttpCall("PUT", f"{self._path}/{own.node.hex()}", shown)
        return HttpCall("POST", self._path, shown)


def make_crd() -> HttpCall:
    """Let Kubernetes know what a GarageNode is."""
    spec = {
        "type": "object",
        "properties": {
            "address": {"type": "string"},
            "hostname": {"type": "string"},
            "port": {"type": "integer", "format": "uint16", "minimum": 0},
        },
        "required": ["address", "hostname", "port"],
    }
    schema = {
        "type": "object",
        "title": "GarageNode",
        "properties": {"spec": spec},
        "required": ["spec"],
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {},
        "additionalPrinterColumns": [],
    }
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": _CRD},
        "spec": {
            "group": _GROUP,
            "names": {
                "kind": "GarageNode",
                "plural": "garagenodes",
                "singular": "garagenode",
                "shortNames": [],
                "categories": [],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{_CRD}"
    return HttpCall("PATCH", f"{path}?fieldManager=garage.{_GROUP}&force=true", crd, APPLY)


def read_kubernetes(answer: Any) -> list[Peer]:
    """The nodes of a list of GarageNodes; what is none is skipped. WireDamaged if it is no list."""
    return _peers(answer.get("items") if isinstance(answer, dict) else None, _read_object)


def _read_object(item: Any) -> Peer | None:
    match item:
        case {"metadata": {"name": str(name)}, "spec": {"address": str(host), "port": int(port)}}:
            return _peer(name, host, port)
    return None


def _peers(entries: Any, read: Callable[[Any], Peer | None]) -> list[Peer]:
    if not isinstance(entries, list):
        raise WireDamaged("the directory's answer is no list of nodes")
    found = (read(entry) for entry in entries[:PEERS_MAX])
    return [peer for peer in found if peer is not None]


def _peer(name: Any, host: Any, port: int) -> Peer | None:
    try:
        node = bytes.fromhex(str(name))
        address = read_address(str(TcpAddress(str(host), port)))
    except (ValueError, WireDamaged):
        return None
    return Peer(NodeId(node), address) if len(node) == NODE_ID_BYTES else None
