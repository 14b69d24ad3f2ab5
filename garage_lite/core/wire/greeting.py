"""What two nodes tell each other first on a new link, and with every ping. Parsing only.

A greeting is a map, so that later versions can add to it; what a reader does not know it skips.
`facts` are small things that parts of a node tell every peer all the time (its name, its disks'
room): by name, any value, FACTS_BYTES_MAX together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from garage_lite.core.limits import KIB
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.peering import ADDRESSES_MAX, read_address

BOOT_BYTES: Final = 16
SERIAL_MAX: Final = 1 << 62
FACTS_BYTES_MAX: Final = 4 * KIB

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who a node says it is, besides the key it has proved."""

    boot: bytes
    """16 random bytes, new at each start: two processes with one key have two."""
    serial: int
    """Of this link, by the side that opened it; 0 in an answer."""
    addresses: tuple[TcpAddress, ...]
    """At which it can be reached, as far as it knows."""
    port: int
    """On which it listens, wherever that is; 0 if it does not."""
    facts: Facts = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """As it travels."""
        return {
            "boot": self.boot,
            "serial": self.serial,
            "addresses": [str(address) for address in self.addresses],
            "port": self.port,
            "facts": dict(self.facts),
        }


def read_greeting(raw: Any) -> Greeting:
    """Raises WireDamaged."""
    match raw:
        case {
            "boot": bytes() as boot,
            "serial": int() as serial,
            "addresses": list() as addresses,
            "port": int() as port,
            "facts": facts,
        } if (
            len(boot) == BOOT_BYTES
            and 0 <= serial <= SERIAL_MAX
            and len(addresses) <= ADDRESSES_MAX
            and 0 <= port <= 65535
        ):
            places = tuple(read_address(each) for each in addresses)
            return Greeting(boot, serial, places, port, read_facts(facts))
    raise WireDamaged("a peer's greeting can't be read")


def read_facts(raw: Any) -> Facts:
    """Raises WireDamaged if they are too many."""
    if not isinstance(raw, dict) or not all(isinstance(name, str) for name in raw):
        raise WireDamaged("a peer tells facts that are no map")
    packed: bytes = msgpack.packb(raw, use_bin_type=True)
    if len(packed) > FACTS_BYTES_MAX:
        raise WireDamaged("a peer tells too many facts")
    return raw
