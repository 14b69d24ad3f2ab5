"""Points in time as the Admin API writes and reads them: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from garage_lite.web.admin.errors import bad_request

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS: Final = 7_900_000_000_000
"""The year 2220; a stored time beyond it is shown as this (Garage's limit)."""


def date_text(ms: int) -> str:
    """`2026-01-31T12:00:00Z`, with `.123` where there are milliseconds."""
    when = _EPOCH + timedelta(milliseconds=min(max(ms, 0), _LATEST_MS))
    precision = "milliseconds" if when.microsecond else "seconds"
    return when.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def optional_date_text(ms: int | None) -> str | None:
    return None if ms is None else date_text(ms)


def date_ms(text: str) -> int:
    """Milliseconds since 1970. Raises AdminError unless `text` is a date with a time zone."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise bad_request("a date must be in RFC 3339 form, for example 2026-01-31T12:00:00Z")
    return (when - _EPOCH) // timedelta(milliseconds=1)
