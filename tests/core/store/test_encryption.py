"""SSE-C: only who has the key reads, and nothing can be moved about."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import AccessDenied, BlockCorrupt, InvalidArgument, NotAllowedHere
from garage_lite.core.ids import DataId
from garage_lite.core.store.encryption import (
    OVERHEAD,
    Cipher,
    CustomerKey,
    check_key,
    cipher_for,
    new_encryption,
)
from garage_lite.system import SystemEntropy
from tests.core.store.world import BLOCK, World, pattern


def customer_key(byte: int) -> CustomerKey:
    key = bytes([byte]) * 32
    return CustomerKey.checked(key, base64.b64encode(hashlib.md5(key).digest()).decode())


KEY, OTHER = customer_key(1), customer_key(2)
ENCRYPTION = new_encryption(KEY, SystemEntropy())
DATA = DataId(bytes(16))


@given(st.binary(max_size=3000), st.integers(0, 2**60))
def test_round_trip(plain: bytes, offset: int) -> None:
    cipher = Cipher(ENCRYPTION, KEY, DATA)
    sealed = cipher.encrypt(plain, offset)
    assert len(sealed) == len(plain) + OVERHEAD
    assert cipher.decrypt(sealed, offset) == plain


def test_a_block_belongs_to_its_place() -> None:
    sealed = Cipher(ENCRYPTION, KEY, DATA).encrypt(b"secret", 7)
    fresh = new_encryption(KEY, SystemEntropy())
    for cipher, offset in [
        (Cipher(ENCRYPTION, KEY, DATA), 8),
        (Cipher(ENCRYPTION, KEY, DataId(b"x" * 16)), 7),
        (Cipher(ENCRYPTION, OTHER, DATA), 7),
        (Cipher(fresh, KEY, DATA), 7),
    ]:
        with pytest.raises(BlockCorrupt):
            cipher.decrypt(sealed, offset)
    for at in range(len(sealed)):
        torn = bytearray(sealed)
        torn[at] ^= 1
        with pytest.raises(BlockCorrupt):
            Cipher(ENCRYPTION, KEY, DATA).decrypt(bytes(torn), 7)


def test_keys_are_checked_as_they_come() -> None:
    with pytest.raises(InvalidArgument):
        CustomerKey.checked(b"short", KEY.md5)
    with pytest.raises(InvalidArgument):
        CustomerKey.checked(KEY.key, OTHER.md5)
    with pytest.raises(InvalidArgument):
        CustomerKey.checked(KEY.key, "é")
    assert repr(KEY.key) not in repr(KEY)


def test_a_key_is_needed_if_and_only_if_encrypted() -> None:
    check_key(ENCRYPTION, KEY)
    check_key(None, None)
    with pytest.raises(AccessDenied):
        check_key(ENCRYPTION, OTHER)
    with pytest.raises(NotAllowedHere):
        check_key(ENCRYPTION, None)
    with pytest.raises(NotAllowedHere):
        check_key(None, KEY)
    assert cipher_for(None, None, DATA) is None


@pytest.mark.parametrize("size", [0, 90, BLOCK, 3 * BLOCK + 5])
async def test_encrypted_objects_are_read_with_their_key_alone(w: World, size: int) -> None:
    content = pattern(size)
    version = await w.put(b"key", content, customer_key=KEY)
    assert version.size == size
    assert version.etag != hashlib.md5(content).digest()
    assert await w.get(b"key", customer_key=KEY) == content
    assert (
        await w.get(b"key", size // 3, size // 2, customer_key=KEY)
        == (content[size // 3 : size // 2])
    )
    with pytest.raises(AccessDenied):
        await w.get(b"key", customer_key=OTHER)
    with pytest.raises(NotAllowedHere):
        await w.get(b"key")


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_nothing_of_the_content_or_the_key_is_stored(tmp_path: Path) -> None:
    content = b"a very secret sentence. " * 100
    async with World(tmp_path) as w:
        await w.put(b"big", content, customer_key=KEY)
        await w.put(b"small", content[:90], customer_key=KEY)
        await w.put(b"plain", b"to be found")
        assert await w.get(b"big", customer_key=KEY) == content
    stored = everything_in(tmp_path)
    assert b"to be found" in stored
    assert b"very secret" not in stored and KEY.key not in stored


async def test_equal_content_does_not_look_equal(w: World) -> None:
    one = await w.put(b"one", b"same", customer_key=KEY)
    two = await w.put(b"two", b"same", customer_key=KEY)
    assert one.etag != two.etag
    assert one.meta.encryption != two.meta.encryption
