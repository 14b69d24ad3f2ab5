"""How values look in the CLI's output: aligned tables, dates, ages. Scripts parse these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from garage_lite.units import format_size

Row = Sequence[str]

_AGES = (
    ("year", 31_536_000),
    ("month", 2_592_000),
    ("week", 604_800),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
    ("second", 1),
)


def print_table(rows: Sequence[Row]) -> None:
    """Columns aligned, two spaces between them; the last one of each row is not padded."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max((len(r[i]) for r in rows if i < len(r)), default=0) for i in range(columns)]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        print("  ".join([*padded, *row[-1:]]))


def short(identifier: str) -> str:
    """An id as tables show it."""
    return identifier[:16]


def first_of(values: Sequence[str]) -> str:
    """The first of several names, and how many there are."""
    if len(values) > 1:
        return f"{values[0]}, ... ({len(values)})"
    return "".join(values)


def sizes(size: int) -> str:
    return f"{format_size(size)} ({format_size(size, binary=True)})"


def capacity(size: int | None) -> str:
    return "gateway" if size is None else format_size(size, binary=True)


def local_time(text: str | None) -> datetime | None:
    """An RFC 3339 moment, in this machine's time zone."""
    return None if text is None else datetime.fromisoformat(text).astimezone()


def moment(text: str | None, missing: str = "") -> str:
    """`2026-11-13 10:27:41.892 +01:00`."""
    time = local_time(text)
    if time is None:
        return missing
    fraction = f".{time.microsecond // 1000:03}" if time.microsecond else ""
    offset = time.strftime("%z")
    return f"{time:%Y-%m-%d %H:%M:%S}{fraction} {offset[:3]}:{offset[3:5]}"


def day(text: str | None) -> str:
    time = local_time(text)
    return f"{time:%Y-%m-%d}" if time else ""


def age(seconds: float, suffix: str = " ago") -> str:
    """`5 minutes ago`; `now` for less than a second."""
    for name, length in _AGES:
        count = int(seconds // length)
        if count:
            return f"{count} {name}{'s' if count > 1 else ''}{suffix}"
    return "now"


def flags(permissions: dict[str, Any]) -> str:
    """Read, write and owner as `RWO`, a blank for what is missing."""
    letters = (("read", "R"), ("write", "W"), ("owner", "O"))
    return "".join(letter if permissions.get(name) else " " for name, letter in letters)


def truth(value: Any) -> str:
    return "true" if value else "false"


def or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def joined(values: Iterable[str]) -> str:
    return ",".join(values)
