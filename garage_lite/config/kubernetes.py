"""Where a process inside a Kubernetes cluster finds its API: what every pod is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from garage_lite.core.errors import ConfigError
from garage_lite.core.wire.address import TcpAddress

_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class KubernetesApi:
    url: str
    token_file: str | None = f"{_ACCOUNT}/token"
    """Read at each request: Kubernetes renews it."""
    ca_file: str | None = f"{_ACCOUNT}/ca.crt"


def kubernetes_api(environ: Mapping[str, str] = os.environ) -> KubernetesApi:
    """ConfigError outside of a pod."""
    host, port = (environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    if not host or not port or not port.isdigit():
        raise ConfigError(
            "[kubernetes_discovery] works in a pod only: KUBERNETES_SERVICE_HOST and"
            " KUBERNETES_SERVICE_PORT are not set"
        )
    return KubernetesApi(f"https://{TcpAddress(host, int(port))}")
