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
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TextIO

PACKAGE: Final = "garage_lite"
GATHER_SECONDS: Final = 0.05
GATHER_LINES: Final = 512
_Event = tuple[int, str, Callable[..., str], tuple[object, ...]]
"""When (microseconds since 1970), the logger's name, what makes the message, and of what."""
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
    handler = handler_for(environ, sys.stderr)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name, level in levels(environ, default_level).items():
        logging.getLogger(name).setLevel(level)


def gathering_handler() -> GatheringHandler | None:
    """Where the lines of this process go, if `set_up` sent them to stderr and nobody else
    listens."""
    match logging.getLogger().handlers:
        case [GatheringHandler() as handler]:
            return handler
    return None


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


def handler_for(environ: Mapping[str, str], stream: TextIO) -> logging.Handler:
    """What writes the lines, and in which form."""

    def wants(name: str) -> bool:
        return environ.get(name, "").lower() not in ("", "0", "false", "no")

    if wants("GARAGE_LOG_TO_SYSLOG"):
        from logging.handlers import SysLogHandler

        handler: logging.Handler = SysLogHandler("/dev/log")
        handler.setFormatter(PlainFormat(prefix="garage-lite: "))
        return handler
    if wants("GARAGE_LOG_TO_JOURNALD"):
        form: PlainFormat = JournaldFormat()
    elif environ.get("GARAGE_LOG_FORMAT", "").lower() == "json":
        form = JsonFormat()
    else:
        form = LineFormat(colour=stream.isatty() and not wants("NO_COLOR"))
    return GatheringHandler(stream, form)


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelname, record.levelname)


def _target(name: str) -> str:
    return name.removeprefix(PACKAGE + ".")


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _microseconds(record: logging.LogRecord) -> int:
    return int(record.created * 1_000_000)


def _time(microseconds: int) -> str:
    return f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06}Z"


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one moment together: a busy node logs a line per request, and a write
    each would cost as much as the rest of a small request.

    A line waits `GATHER_SECONDS` at most, and not at all when it is a warning or worse, when many
    wait already, or when no event loop runs in this thread.
    """

    def __init__(self, stream: TextIO, form: PlainFormat) -> None:
        super().__init__(stream)
        self.setFormatter(form)
        self._form = form
        self._entries: list[str | _Event] = []
        self._due = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._entries.append(self.format(record))
        except Exception:
            self.handleError(record)
            return
        self._flush_in_time(urgent=record.levelno >= logging.WARNING)

    def event(self, now_us: int, name: str, text: Callable[..., str], *facts: object) -> None:
        """A line at INFO by the logger `name`, without a record made for it: its message is
        `text(*facts)`, asked for when the line is written. The caller has checked the level.

        For what is logged with each request: a record costs more than its line.
        """
        self._entries.append((now_us, name, text, facts))
        self._flush_in_time(urgent=False)

    def _flush_in_time(self, *, urgent: bool) -> None:
        if urgent or len(self._entries) >= GATHER_LINES:
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
            entries, self._entries = self._entries, []
            if entries and not self.stream.closed:
                lines = [
                    entry if isinstance(entry, str) else self._line(entry) for entry in entries
                ]
                self.stream.write(self.terminator.join([*lines, ""]))
                self.stream.flush()

    def _line(self, event: _Event) -> str:
        now_us, name, text, facts = event
        return self._form.line(now_us, "INFO", _target(name), text(*facts))


class PlainFormat(logging.Formatter):
    """`target: message`, one line, with the traceback of an exception folded into it."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            message += " | " + " | ".join(line.strip() for line in lines)
        return self.line(_microseconds(record), _level(record), _target(record.name), message)

    def line(self, now_us: int, level: str, target: str, message: str) -> str:
        """One event; `now_us`: microseconds since 1970."""
        safe = message if message.isprintable() else message.translate(_ESCAPES)
        return f"{self._prefix}{target}: {safe}"


class LineFormat(PlainFormat):
    """For people."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def line(self, now_us: int, level: str, target: str, message: str) -> str:
        shown = f"{level:>5}"
        if self._colour:
            shown = f"{_COLOURS.get(level, '')}{shown}\x1b[0m"
        return f"{_time(now_us)} {shown} {super().line(now_us, level, target, message)}"


class JournaldFormat(PlainFormat):
    """sd-daemon(3): journald reads the priority off the line."""

    def line(self, now_us: int, level: str, target: str, message: str) -> str:
        return f"<{_PRIORITIES.get(level, 6)}>{super().line(now_us, level, target, message)}"


class JsonFormat(PlainFormat):
    """One object a line; fields given as `extra` stand at its top level, as in Garage."""

    def format(self, record: logging.LogRecord) -> str:
        event = _event(
            _microseconds(record), _level(record), _target(record.name), record.getMessage()
        )
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS and name not in event:
                event[name] = value if isinstance(value, int | float | str | None) else str(value)
        return json.dumps(event, ensure_ascii=False)

    def line(self, now_us: int, level: str, target: str, message: str) -> str:
        return json.dumps(_event(now_us, level, target, message), ensure_ascii=False)


def _event(now_us: int, level: str, target: str, message: str) -> dict[str, object]:
    return {"timestamp": _time(now_us), "level": level, "target": target, "message": message}
