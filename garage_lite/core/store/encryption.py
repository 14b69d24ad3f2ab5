"""SSE-C: encryption of a version's bytes with a key that the customer brings each time.

    data key = BLAKE3 keyed by the customer's key, of: label | salt | data id
    block    = XChaCha20-Poly1305(data key, nonce, plain, position)
    nonce    = offset of the block in the plain bytes (8) | zeros (16)
    position = data id | offset (8)

A data id is never written twice, so a nonce serves once. The position is authenticated: a block
moved or exchanged inside the metadata does not decrypt. The salt is the version's (the upload's
for parts). The customer's key is never stored; the verifier tells a wrong one apart before any
block is read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from garage_lite.core.errors import AccessDenied, BlockCorrupt, InvalidArgument, NotAllowedHere
from garage_lite.core.ids import DataId
from garage_lite.core.model.objects import Encryption
from garage_lite.core.ports import Entropy

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
OVERHEAD: Final = 16
"""How much longer than its plain bytes an encrypted block is."""

_DATA_LABEL: Final = b"garage-lite sse-c data key 1"
_VERIFIER_LABEL: Final = b"garage-lite sse-c verifier 1"


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """A key that came with a request. Kept for the length of the request only."""

    key: bytes = field(repr=False)
    md5: str
    """Base64 MD5 of the key, as the client sent it."""

    @classmethod
    def checked(cls, key: bytes, md5: str) -> CustomerKey:
        """Raises InvalidArgument for a key of the wrong length or one that is not `md5`'s."""
        if len(key) != KEY_BYTES:
            raise InvalidArgument("The secret key was invalid for the specified algorithm.")
        digest = hashlib.md5(key, usedforsecurity=False).digest()
        if not hmac.compare_digest(base64.b64encode(digest), md5.strip().encode()):
            raise InvalidArgument(
                "The calculated MD5 hash of the key did not match the hash that was provided."
            )
        return cls(key, md5.strip())


def _verifier(key: CustomerKey, salt: bytes) -> bytes:
    return blake3(_VERIFIER_LABEL + salt, key=key.key).digest()


def new_encryption(key: CustomerKey, entropy: Entropy) -> Encryption:
    """What is stored of how a new version is encrypted with `key`."""
    salt = entropy.token(SALT_BYTES)
    return Encryption(salt, _verifier(key, salt), key.md5)


def check_key(encryption: Encryption | None, key: CustomerKey | None) -> None:
    """That a request brings a key if and only if the version needs one, and the right one.

    Raises NotAllowedHere or AccessDenied, as AWS does.
    """
    if encryption is None:
        if key is not None:
            raise NotAllowedHere("The encryption parameters are not applicable to this object.")
        return
    if key is None:
        raise NotAllowedHere(
            "The object was stored using a form of Server Side Encryption. The correct "
            "parameters must be provided to retrieve the object."
        )
    if not hmac.compare_digest(_verifier(key, encryption.salt), encryption.verifier):
        raise AccessDenied


class Cipher:
    """Encrypts and decrypts the blocks of one data id. Safe in threads."""

    __slots__ = ("_data", "_key")

    def __init__(self, encryption: Encryption, key: CustomerKey, data: DataId) -> None:
        self._data = data
        self._key = blake3(_DATA_LABEL + encryption.salt + data, key=key.key).digest()

    def encrypt(self, plain: bytes, offset: int) -> bytes:
        place = offset.to_bytes(8, "big")
        sealed: bytes = crypto_aead_xchacha20poly1305_ietf_encrypt(
            plain, self._data + place, place + bytes(16), self._key
        )
        return sealed

    def decrypt(self, sealed: bytes, offset: int) -> bytes:
        """Raises BlockCorrupt where these are not the bytes that were encrypted for this place."""
        place = offset.to_bytes(8, "big")
        try:
            plain: bytes = crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed, self._data + place, place + bytes(16), self._key
            )
        except CryptoError as error:
            raise BlockCorrupt("an encrypted block does not decrypt") from error
        return plain


def cipher_for(
    encryption: Encryption | None, key: CustomerKey | None, data: DataId
) -> Cipher | None:
    """The cipher of a data id, None where its version is not encrypted. See `check_key`."""
    check_key(encryption, key)
    return Cipher(encryption, key, data) if encryption and key else None
