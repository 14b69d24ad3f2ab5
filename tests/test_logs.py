"""Log lines: one event, one line, in each of the forms; nobody can forge one."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from garage_lite.logs import (
    GATHER_LINES,
    GatheringHandler,
    JournaldFormat,
    JsonFormat,
    LineFormat,
    PlainFormat,
    gathering_handler,
    handler_for,
    levels,
    set_up,
)

DEBUG, INFO, WARNING = logging.DEBUG, logging.INFO, logging.WARNING


def record(message: str, level: int = INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("garage_lite.core.rpc", level, "f", 1, message, None, None)
    made.created = 1_795_000_000.123456
    vars(made).update(extra)
    return made


def test_a_line_for_people() -> None:
    line = LineFormat(colour=False).format(record("listening"))
    assert line == "2026-11-18T11:06:40.123456Z  INFO core.rpc: listening"
    assert "\x1b[33m WARN\x1b[0m" in LineFormat(colour=True).format(record("x", WARNING))


def test_journald_and_json() -> None:
    assert JournaldFormat().format(record("x", logging.ERROR)) == "<3>core.rpc: x"
    event = json.loads(JsonFormat().format(record("two\nlines", bucket="b", size=3, odd={1})))
    assert event == {
        "timestamp": "2026-11-18T11:06:40.123456Z",
        "level": "INFO",
        "target": "core.rpc",
        "message": "two\nlines",
        "bucket": "b",
        "size": 3,
        "odd": "{1}",
    }


@pytest.mark.parametrize("nasty", ["a\nb", "a\r\nb", "\x1b[31m", "\x9b", "a\x00b", "\x7f"])
def test_nobody_forges_a_line(nasty: str) -> None:
    line = LineFormat(colour=False).format(record(nasty))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("why\nnot")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    line = LineFormat(colour=False).format(made)
    assert "\n" not in line and "ValueError: why" in line
    assert "ValueError: why\nnot" in json.loads(JsonFormat().format(made))["exception"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"garage_lite": INFO}),
        ({"RUST_LOG": "debug"}, {"garage_lite": DEBUG}),
        ({"RUST_LOG": "netapp=warn,garage=debug"}, {"garage_lite": DEBUG}),
        ({"RUST_LOG": "debug", "GARAGE_LITE_LOG": "warn"}, {"garage_lite": WARNING}),
        (
            {"GARAGE_LITE_LOG": "warn, core.cluster=TRACE"},
            {"garage_lite": WARNING, "garage_lite.core.cluster": DEBUG},
        ),
        ({"GARAGE_LITE_LOG": "nonsense,=,x=y"}, {"garage_lite": INFO}),
    ],
)
def test_levels(environ: dict[str, str], expected: dict[str, int]) -> None:
    found = levels(environ)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("environ", "form"),
    [
        ({}, LineFormat),
        ({"GARAGE_LOG_FORMAT": "JSON"}, JsonFormat),
        ({"GARAGE_LOG_FORMAT": "json", "GARAGE_LOG_TO_JOURNALD": "1"}, JournaldFormat),
        ({"GARAGE_LOG_TO_JOURNALD": "false"}, LineFormat),
    ],
)
def test_set_up(environ: dict[str, str], form: type, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = logging.getLogger(), logging.getLogger("garage_lite")
    before = root.handlers[:], root.level, own.level
    try:
        set_up(environ)
        (handler,) = root.handlers
        assert type(handler.formatter) is form
        assert logging.getLogger("garage_lite.core").isEnabledFor(INFO)
        assert not logging.getLogger("somebody.else").isEnabledFor(INFO)
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        own.setLevel(before[2])


@pytest.mark.parametrize("environ", [{}, {"GARAGE_LOG_FORMAT": "json"}])
def test_an_event_reads_like_a_record(environ: dict[str, str]) -> None:
    """The cheap way for a line per request and the ordinary one must not differ."""
    stream = io.StringIO()
    handler = handler_for(environ, stream)
    assert isinstance(handler, GatheringHandler)
    handler.emit(record("a\nline of 3"))
    at_us = 1_795_000_000_123_456
    handler.event(at_us, "garage_lite.core.rpc", lambda what, n: f"{what} of {n}", "a\nline", 3)
    first, second = stream.getvalue().splitlines()
    assert first == second


async def test_lines_of_one_moment_are_written_together_and_in_order() -> None:
    stream = io.StringIO()
    handler = GatheringHandler(stream, PlainFormat())
    handler.event(0, "garage_lite.a", lambda: "one")
    handler.emit(record("two"))
    handler.event(0, "garage_lite.a", lambda: "three")
    assert stream.getvalue() == ""
    handler.emit(record("four", WARNING))
    assert stream.getvalue() == "a: one\ncore.rpc: two\na: three\ncore.rpc: four\n"
    for number in range(GATHER_LINES):
        handler.event(0, "garage_lite.a", str, number)
    assert stream.getvalue().count("\n") == GATHER_LINES + 4


def test_a_gathering_handler_is_found_only_where_nobody_else_listens() -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        handler = GatheringHandler(io.StringIO(), PlainFormat())
        root.handlers[:] = [handler]
        assert gathering_handler() is handler
        root.handlers[:] = [handler, logging.NullHandler()]
        assert gathering_handler() is None
    finally:
        root.handlers[:] = before
