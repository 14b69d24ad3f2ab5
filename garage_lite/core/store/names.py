"""What buckets and access keys may be called. Pure rules: knows no rows, no clock.

Bucket names follow AWS's "Bucket naming rules" for general purpose buckets; access keys follow
Garage 2.3, which lets keys of another store be imported.
"""

from __future__ import annotations

import re
from typing import Final

from garage_lite.core.errors import InvalidArgument, InvalidName
from garage_lite.core.ports import Entropy

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_IPV4: Final = re.compile(r"\d{1,3}(\.\d{1,3}){3}", re.ASCII)
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,128}", re.ASCII)
_SECRET: Final = re.compile(r"[!-~]{16,256}", re.ASCII)
_RESERVED_SUFFIXES: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_PUNYCODE: Final = "xn--"


def check_bucket_name(name: str, *, allow_punycode: bool = False) -> None:
    """Raises InvalidName, saying which rule `name` breaks."""
    fault = _fault_of_bucket_name(name, allow_punycode)
    if fault:
        raise InvalidName(f"The specified bucket name is not valid: {fault}.")


def _fault_of_bucket_name(name: str, allow_punycode: bool) -> str | None:
    if not 3 <= len(name) <= 63:
        return "it must have 3 to 63 characters"
    if not _BUCKET.fullmatch(name):
        return "only a-z, 0-9, '.' and '-' are allowed, and a letter or digit at both ends"
    if ".." in name or ".-" in name or "-." in name:
        return "'.' must stand between letters or digits"
    if _IPV4.fullmatch(name):
        return "it must not look like an IP address"
    if name.startswith(_PUNYCODE) and not allow_punycode:
        return f"names starting with {_PUNYCODE} are reserved"
    if name.endswith(_RESERVED_SUFFIXES):
        return "its ending is reserved by S3"
    return None


def check_access_key(key_id: str, secret: str) -> None:
    """Raises InvalidArgument unless both can be imported. Never repeats the secret."""
    if not _KEY_ID.fullmatch(key_id):
        raise InvalidArgument(
            "The access key id must have 8 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-'."
        )
    if not _SECRET.fullmatch(secret):
        raise InvalidArgument(
            "The secret key must have 16 to 256 visible ASCII characters without spaces."
        )


def new_key_id(entropy: Entropy) -> str:
    """An access key id in Garage's form: GK and 24 hex digits."""
    return f"GK{entropy.token(12).hex()}"


def new_secret(entropy: Entropy) -> str:
    """A secret key in Garage's form: 64 hex digits."""
    return entropy.token(32).hex()
