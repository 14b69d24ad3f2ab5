"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.units import format_size, parse_duration_ms, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500 B", 500),
        ("1k", 1000),
        ("10M", 10**7),
        ("10MB", 10**7),
        ("64 MiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("1.5G", 1_500_000_000),
        ("2T", 2 * 10**12),
        ("1PiB", 1 << 50),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1MM", "1 M B", "1e3", "١", "99999E"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("10 min", 600_000),
        ("6h", 21_600_000),
        ("1d 12h", 129_600_000),
        ("1d12h", 129_600_000),
        ("1.5 weeks", 907_200_000),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "  ", "6", "h", "6x", "1d 2", "-1h", "1h!"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("size", "decimal", "binary"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1000, "1.0 kB", "1000 B"),
        (1 << 20, "1.0 MB", "1.0 MiB"),
        (1_200_000, "1.2 MB", "1.1 MiB"),
        (2**63, "9.2 EB", "8.0 EiB"),
    ],
)
def test_formatting(size: int, decimal: str, binary: str) -> None:
    assert (format_size(size), format_size(size, binary=True)) == (decimal, binary)


@given(st.integers(0, 10**15), st.booleans())
def test_formatting_keeps_the_magnitude(size: int, binary: bool) -> None:
    shown = parse_size(format_size(size, binary=binary))
    assert abs(shown - size) <= max(size * 0.05, 0.5)
