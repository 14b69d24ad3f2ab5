"""Join strings: all that a new node needs to find and trust a cluster, in one line to paste.

    text = "GL1", then in Crockford's base32:
        msgpack [1, key of the inviting node (32 B), secret (16 B), [address, ...], expiry (s)]
        BLAKE2b-32 of that, which catches typing errors before any network is used

Who holds the text can join: the secret becomes the network key of a handshake (`network_key`)
that only the inviting node answers, and which proves that node's key, so that an attacker in the
middle needs both. Letters may be typed in either case, O for 0, I and L for 1; spaces and dashes
are dropped. The expiry is for people to see: the inviting node alone judges it. Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.peering import ADDRESSES_MAX, read_address

PREFIX: Final = "GL1"
_PREFIXES: Final = (PREFIX, "GLI", "GLL")
SECRET_BYTES: Final = 16
TEXT_CHARS_MAX: Final = 4096
"""Eight addresses of the longest names fit."""
_VERSION: Final = 1
_CHECK_BYTES: Final = 4
_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ: Final = {
    **{digit: value for value, digit in enumerate(_DIGITS)},
    **{"O": 0, "I": 1, "L": 1},
}
_NETWORK_KEY_DOMAIN: Final = b"garage-lite join"


@dataclass(frozen=True)
class Invitation:
    """What a join string says."""

    inviter: NodeId
    secret: bytes = field(repr=False)
    addresses: tuple[TcpAddress, ...]
    expires_s: int
    """By the inviter's clock, seconds since 1970."""


def network_key(secret: bytes) -> bytes:
    """The network key of the handshake in which an invitation's secret is used. All that the
    inviting node keeps of the secret."""
    return hashlib.blake2b(secret, digest_size=32, person=_NETWORK_KEY_DOMAIN).digest()


def encode(invitation: Invitation) -> str:
    """The join string."""
    fields = [
        _VERSION,
        invitation.inviter,
        invitation.secret,
        [str(address) for address in invitation.addresses],
        invitation.expires_s,
    ]
    body: bytes = msgpack.packb(fields, use_bin_type=True)
    return PREFIX + _to_base32(body + _check(body))


def decode(text: str) -> Invitation:
    """The invitation. Raises InvalidArgument in plain words on anything that is none."""
    compact = "".join(text.split()).replace("-", "").upper()
    if not compact.startswith(_PREFIXES):
        raise InvalidArgument("This is no join string: it does not begin with GL1.")
    if len(compact) > TEXT_CHARS_MAX:
        raise InvalidArgument("This is no join string: it is too long.")
    raw = _from_base32(compact[len(PREFIX) :])
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if _check(body) != check:
        raise InvalidArgument("The join string has a typing error, or a part of it is missing.")
    try:
        return _read(msgpack.unpackb(body, raw=False))
    except (ValueError, TypeError, msgpack.UnpackException, WireDamaged) as error:
        raise InvalidArgument(f"The join string can't be read: {error}") from error


def _read(fields: Any) -> Invitation:
    match fields:
        case [1, bytes() as inviter, bytes() as secret, list() as addresses, int() as expires] if (
            len(inviter) == NODE_ID_BYTES
            and len(secret) == SECRET_BYTES
            and 0 < len(addresses) <= ADDRESSES_MAX
        ):
            places = tuple(read_address(each) for each in addresses)
            return Invitation(NodeId(inviter), secret, places, expires)
        case [int() as version, *_] if version != _VERSION:
            raise InvalidArgument("The join string is of a newer version of Garage Lite.")
    raise InvalidArgument("The join string can't be read.")


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()


def _to_base32(data: bytes) -> str:
    count = (len(data) * 8 + 4) // 5
    number = int.from_bytes(data, "big")
    return "".join(_DIGITS[(number >> 5 * place) & 31] for place in reversed(range(count)))


def _from_base32(text: str) -> bytes:
    """InvalidArgument on a letter that is none, or a length or first digit that no encoding has."""
    number = 0
    for letter in text:
        if letter not in _READ:
            raise InvalidArgument(f"The join string holds {letter!r}, which no join string has.")
        number = number << 5 | _READ[letter]
    length = len(text) * 5 // 8
    if (length * 8 + 4) // 5 != len(text) or number >> 8 * length:
        raise InvalidArgument("The join string has a typing error, or a part of it is missing.")
    return number.to_bytes(length, "big")
