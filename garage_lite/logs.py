"""Log lines on stderr: one event, one line, for people, for journald or as JSON.

    2026-11-22T17:47:40.123456Z  INFO core.cluster.rpc: listening on [::]:3901

GARAGE_LOG_FORMAT=json        one JSON object a line
GARAGE_LOG_TO_JOURNALD=true   journald's priority prefix instead of the time, which it adds itself
GARAGE_LOG_TO_SYSLOG=true     the local syslog daemon instead of stderr
GARAGE_LITE_LOG, RUST_LOG     levels: "debug", or "info,core.cluster=debug"; ours wins
NO_COLOR=1                    no colours, even on a terminal

Line breaks and control characters in a message are escaped: what a client sends can't forge a
line. Module names are those of this package, without its name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TextIO

PACKAGE: Final = "garage_lite"
GATHER_SECONDS: Final = 0.05
GATHER_LINES: Final = 512
_LEVELS: Final = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
_NAMES: Final = {"WARNING": "WARN", "CRITICAL": "ERROR"}
_COLOURS: Final = {"ERROR": "\x1b[31m", "WARN": "\x1b[33m", "INFO": "\x1b[32m", "DEBUG": "\x1b[34m"}
_PRIORITIES: Final = {"ERROR": 3, "WARN": 4, "INFO": 6, "DEBUG": 7}
_STANDARD_FIELDS: Final = frozenset(
    vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}
)
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def set_up(environ: Mapping[str, str], default_level: str = "info") -> None:
    """Send this process's log where the environment says. Call once, at start.

    Other libraries' loggers speak from warnings upwards.
    """
    # What no format shows is not looked up for every line (Python's logging HOWTO, Optimization).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = _handler(environ, sys.stderr)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name, level in levels(environ, default_level).items():
        logging.getLogger(name).setLevel(level)


def levels(environ: Mapping[str, str], default_level: str = "info") -> dict[str, int]:
    """Logger name -> level. A part of the setting that makes no sense is left out: a misspelt
    log level must not keep a node from starting."""
    found = {PACKAGE: _LEVELS[default_level]}
    for part in (environ.get("GARAGE_LITE_LOG") or environ.get("RUST_LOG") or "").split(","):
        target, equals, level = part.strip().rpartition("=")
        value = _LEVELS.get(level.strip().lower())
        if value is None:
            continue
        target = target.strip()
        if not equals or target in (PACKAGE, "garage"):
            found[PACKAGE] = value
        else:
            found[f"{PACKAGE}.{target.removeprefix(PACKAGE + '.')}"] = value
    return found


def _handler(environ: Mapping[str, str], stream: TextIO) -> logging.Handler:
    def wants(name: str) -> bool:
        return environ.get(name, "").lower() not in ("", "0", "false", "no")

    if wants("GARAGE_LOG_TO_SYSLOG"):
        from logging.handlers import SysLogHandler

        handler: logging.Handler = SysLogHandler("/dev/log")
        handler.setFormatter(PlainFormat(prefix="garage-lite: "))
        return handler
    handler = GatheringHandler(stream)
    if wants("GARAGE_LOG_TO_JOURNALD"):
        handler.setFormatter(JournaldFormat())
    elif environ.get("GARAGE_LOG_FORMAT", "").lower() == "json":
        handler.setFormatter(JsonFormat())
    else:
        handler.setFormatter(LineFormat(colour=stream.isatty() and not wants("NO_COLOR")))
    return handler


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelname, record.levelname)


def _target(record: logging.LogRecord) -> str:
    return record.name.removeprefix(PACKAGE + ".")


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(record: logging.LogRecord) -> str:
    microseconds = int(record.created * 1_000_000)
    return f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06}Z"


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one moment together: a busy node logs a line per request, and a write
    each would cost as much as the rest of a small request.

    A line waits `GATHER_SECONDS` at most, and not at all when it is a warning or worse, when many
    wait already, or when no event loop runs in this thread.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._due = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING or len(self._lines) >= GATHER_LINES:
            self.flush()
        elif not self._due:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self.flush()
            else:
                self._due = True
                loop.call_later(GATHER_SECONDS, self._flush_gathered)

    def _flush_gathered(self) -> None:
        self._due = False
        self.flush()

    def flush(self) -> None:
        with self.lock or nullcontext():
            lines, self._lines = self._lines, []
            if lines and not self.stream.closed:
                self.stream.write("".join(lines))
                self.stream.flush()


class PlainFormat(logging.Formatter):
    """`target: message`, one line, with the traceback of an exception folded into it."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        return f"{self._prefix}{_target(record)}: {self.text(record)}"

    def text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            message += " | " + " | ".join(line.strip() for line in lines)
        return message if message.isprintable() else message.translate(_ESCAPES)


class LineFormat(PlainFormat):
    """For people."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = _level(record)
        shown = f"{level:>5}"
        if self._colour:
            shown = f"{_COLOURS.get(level, '')}{shown}\x1b[0m"
        return f"{_time(record)} {shown} {super().format(record)}"


class JournaldFormat(PlainFormat):
    """sd-daemon(3): journald reads the priority off the line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(_level(record), 6)}>{super().format(record)}"


class JsonFormat(PlainFormat):
    """One object a line; fields given as `extra` stand at its top level, as in Garage."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "timestamp": _time(record),
            "level": _level(record),
            "target": _target(record),
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS and name not in event:
                event[name] = value if isinstance(value, int | float | str | None) else str(value)
        return json.dumps(event, ensure_ascii=False)
