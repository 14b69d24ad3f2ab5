"""The Secret Handshake: two nodes that share a network key prove who they are to each other.

Dominic Tarr, "Designing a Secret Handshake", 2015, on libsodium. K is the network key (the
cluster's rpc_secret), A and B the long-term Ed25519 keys of client and server, a and b fresh
X25519 keys; x.y is their shared secret, hmac is HMAC-SHA-512 cut to 32 bytes, box is
XSalsa20-Poly1305 under a key used once, with a nonce of zeros.

    1  client -> server   64 B   hmac_K(ap) ap
    2  server -> client   64 B   hmac_K(bp) bp
    3  client -> server  112 B   box[sha256(K a.b a.B)](H)    H = sign_A(K Bp sha256(a.b)) Ap
    4  server -> client   80 B   box[sha256(K a.b a.B A.b)](sign_B(K H sha256(a.b)))

The client must know Bp; the server learns Ap. Who lacks K learns nothing, not even B's key, and
costs the server one HMAC. Whatever is wrong is one error, `HandshakeFailed`: a stranger must not
learn which check failed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from nacl.bindings import (
    crypto_box_seed_keypair,
    crypto_scalarmult,
    crypto_secretbox,
    crypto_secretbox_open,
    crypto_sign,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
    crypto_sign_open,
)
from nacl.exceptions import CryptoError

from garage_lite.core.errors import NodeError
from garage_lite.core.ids import NodeId

KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_NONCE_BYTES: Final = 24
_ZERO_NONCE: Final = bytes(_NONCE_BYTES)
_BOX_TAG_BYTES: Final = 16

_HELLO_BYTES: Final = 64
_CLIENT_PROOF_BYTES: Final = _SIGNATURE_BYTES + KEY_BYTES + _BOX_TAG_BYTES
_SERVER_PROOF_BYTES: Final = _SIGNATURE_BYTES + _BOX_TAG_BYTES


class HandshakeFailed(NodeError):
    """The other side does not hold this cluster's secret, or is not the node it should be."""


class Step(Enum):
    """What a side waits for."""

    CLIENT_HELLO = "1"
    SERVER_HELLO = "2"
    CLIENT_PROOF = "3"
    SERVER_PROOF = "4"
    DONE = "done"
    FAILED = "failed"


EXPECTED_BYTES: Final = {
    Step.CLIENT_HELLO: _HELLO_BYTES,
    Step.SERVER_HELLO: _HELLO_BYTES,
    Step.CLIENT_PROOF: _CLIENT_PROOF_BYTES,
    Step.SERVER_PROOF: _SERVER_PROOF_BYTES,
    Step.DONE: 0,
    Step.FAILED: 0,
}

NEXT: Final = {
    # server
    Step.CLIENT_HELLO: Step.CLIENT_PROOF,
    Step.CLIENT_PROOF: Step.DONE,
    # client
    Step.SERVER_HELLO: Step.SERVER_PROOF,
    Step.SERVER_PROOF: Step.DONE,
}
"""The whole state table: a good message moves on, anything else to FAILED."""


@dataclass(frozen=True)
class SessionKeys:
    """What both sides hold at the end: one box stream each way, and who is at the other end."""

    peer: NodeId
    send_key: bytes = field(repr=False)
    send_nonce: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    receive_nonce: bytes = field(repr=False)


class Handshake:
    """One side. Send what `opening` holds, then feed `receive` messages of exactly `expected`
    bytes and send what it returns, until `step` is DONE; then take `keys`.

    `secret` is the 64-byte Ed25519 key (seed, public), `seed` 32 fresh random bytes, `server` the
    public key the client wants to meet, None on the server's side. A server may know `others`,
    network keys besides the first; `network_key` is the one that its client holds.
    """

    def __init__(
        self,
        network_key: bytes,
        secret: bytes,
        seed: bytes,
        server: NodeId | None,
        others: Sequence[bytes] = (),
    ):
        self.network_key = network_key
        self._others = others
        self._secret = secret
        self._public = secret[KEY_BYTES:]
        self._seed = seed
        self._server = server
        self._own_ephemeral = b""
        self._own_ephemeral_secret = b""
        self._peer_ephemeral = b""
        self._transcript = b""
        self._proof = b""
        self.step = Step.CLIENT_HELLO if server is None else Step.SERVER_HELLO
        self.opening = b"" if server is None else self._hello()
        self.keys: SessionKeys | None = None

    @property
    def expected(self) -> int:
        """Bytes of the next message."""
        return EXPECTED_BYTES[self.step]

    def receive(self, message: bytes) -> bytes:
        """Check one message and return the answer to it (maybe empty). HandshakeFailed."""
        handler = {
            Step.CLIENT_HELLO: self._on_client_hello,
            Step.SERVER_HELLO: self._on_server_hello,
            Step.CLIENT_PROOF: self._on_client_proof,
            Step.SERVER_PROOF: self._on_server_proof,
        }.get(self.step)
        step, self.step = self.step, Step.FAILED
        if handler is None or len(message) != EXPECTED_BYTES[step]:
            raise HandshakeFailed
        try:
            answer = handler(message)
        except (CryptoError, ValueError, RuntimeError) as error:
            # libsodium refuses forged boxes and signatures, and points of small order.
            raise HandshakeFailed from error
        self.step = NEXT[step]
        return answer

    def _hello(self) -> bytes:
        self._own_ephemeral, self._own_ephemeral_secret = crypto_box_seed_keypair(self._seed)
        return self._hmac(self._own_ephemeral) + self._own_ephemeral

    def _hmac(self, data: bytes) -> bytes:
        return hmac.digest(self.network_key, data, "sha512")[:KEY_BYTES]

    def _take_hello(self, message: bytes) -> None:
        tag, self._peer_ephemeral = message[:KEY_BYTES], message[KEY_BYTES:]
        if not hmac.compare_digest(tag, self._hmac(self._peer_ephemeral)):
            raise HandshakeFailed

    def _on_client_hello(self, message: bytes) -> bytes:
        tag, ephemeral = message[:KEY_BYTES], message[KEY_BYTES:]
        for other in self._others:
            if hmac.compare_digest(tag, hmac.digest(other, ephemeral, "sha512")[:KEY_BYTES]):
                self.network_key = other
        self._take_hello(message)
        return self._hello()

    def _on_server_hello(self, message: bytes) -> bytes:
        self._take_hello(message)
        server = self._server or b""
        self._agree(crypto_scalarmult(self._own_ephemeral_secret, _to_x25519(server)))
        signed = self.network_key + server + self._shared_hash()
        self._proof = crypto_sign(signed, self._secret)[:_SIGNATURE_BYTES] + self._public
        box = crypto_secretbox(self._proof, _ZERO_NONCE, _sha256(self._transcript))
        own = crypto_sign_ed25519_sk_to_curve25519(self._secret)
        self._transcript += crypto_scalarmult(own, self._peer_ephemeral)
        return box

    def _on_client_proof(self, message: bytes) -> bytes:
        own = crypto_sign_ed25519_sk_to_curve25519(self._secret)
        self._agree(crypto_scalarmult(own, self._peer_ephemeral))
        self._proof = crypto_secretbox_open(message, _ZERO_NONCE, _sha256(self._transcript))
        signature, client = self._proof[:_SIGNATURE_BYTES], self._proof[_SIGNATURE_BYTES:]
        signed = self.network_key + self._public + self._shared_hash()
        crypto_sign_open(signature + signed, client)
        self._transcript += crypto_scalarmult(self._own_ephemeral_secret, _to_x25519(client))
        answer = crypto_sign(self._server_statement(), self._secret)[:_SIGNATURE_BYTES]
        self.keys = self._session_keys(NodeId(client))
        return crypto_secretbox(answer, _ZERO_NONCE, _sha256(self._transcript))

    def _on_server_proof(self, message: bytes) -> bytes:
        server = self._server or b""
        signature = crypto_secretbox_open(message, _ZERO_NONCE, _sha256(self._transcript))
        crypto_sign_open(signature + self._server_statement(), server)
        self.keys = self._session_keys(NodeId(server))
        return b""

    def _agree(self, mixed_with_server: bytes) -> None:
        """K, a.b and a.B: what both have once the hellos are exchanged."""
        shared = crypto_scalarmult(self._own_ephemeral_secret, self._peer_ephemeral)
        self._transcript = self.network_key + shared + mixed_with_server

    def _shared_hash(self) -> bytes:
        return _sha256(self._transcript[KEY_BYTES : 2 * KEY_BYTES])

    def _server_statement(self) -> bytes:
        return self.network_key + self._proof + self._shared_hash()

    def _session_keys(self, peer: NodeId) -> SessionKeys:
        secret = _sha256(_sha256(self._transcript))
        return SessionKeys(
            peer=peer,
            send_key=_sha256(secret + peer),
            send_nonce=self._hmac(self._peer_ephemeral)[:_NONCE_BYTES],
            receive_key=_sha256(secret + self._public),
            receive_nonce=self._hmac(self._own_ephemeral)[:_NONCE_BYTES],
        )


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _to_x25519(public: bytes) -> bytes:
    return crypto_sign_ed25519_pk_to_curve25519(public)
