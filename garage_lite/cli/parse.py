"""Command lines read against a table of commands, as clap reads Garage's.

Options may follow positionals, short flags may be joined (`-be`), values may be attached
(`--zone=dc1`, `-zdc1`), `--` ends the options. Global options stand before the command; their
long forms are taken after it too, where the command has none of that name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Values = dict[str, Any]

PROGRAM: Final = "garage-lite"


class UsageError(Exception):
    """The command line makes no sense; the message says why."""


class HelpWanted(Exception):
    """`text` is the answer to --help, or (not `asked`) to half a command."""

    def __init__(self, text: str, asked: bool = True) -> None:
        super().__init__(text)
        self.text = text
        self.asked = asked


class VersionWanted(Exception):
    """--version."""


@dataclass(frozen=True)
class Option:
    names: tuple[str, ...]
    about: str
    value: str | None = None
    """What the value is called; None for a flag."""
    many: bool = False
    required: bool = False

    @property
    def field(self) -> str:
        long = [name for name in self.names if name.startswith("--")]
        return (long or list(self.names))[0].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Positional:
    name: str
    about: str
    required: bool = True
    many: bool = False

    @property
    def field(self) -> str:
        return self.name.lower().replace("-", "_")


@dataclass(frozen=True)
class Command:
    path: tuple[str, ...]
    about: str
    positionals: tuple[Positional, ...] = ()
    options: tuple[Option, ...] = ()
    run: str | None = None
    """`module:function` below the CLI package; None while the feature isn't there."""
    hidden: bool = False


Commands = Mapping[tuple[str, ...], Command]


def parse(
    arguments: Sequence[str], commands: Commands, global_options: Sequence[Option]
) -> tuple[Command, Values]:
    """The command and its values by field name (global ones too): flags are booleans, options
    texts or None or lists. Raises UsageError, HelpWanted, VersionWanted."""
    reader = _Reader(arguments, global_options)
    path: tuple[str, ...] = ()
    while path not in commands:
        word = reader.word(commands, path)
        if not any(known[: len(path) + 1] == (*path, word) for known in commands):
            raise UsageError(_no_command(path, word, commands))
        path = (*path, word)
    command = commands[path]
    reader.read_command(command)
    return command, reader.values


class _Reader:
    """The arguments, taken from the left."""

    def __init__(self, arguments: Sequence[str], global_options: Sequence[Option]) -> None:
        self._arguments = list(arguments)
        self._at = 0
        self._globals = global_options
        self.values: Values = {}
        self._fill(global_options)

    @property
    def _done(self) -> bool:
        return self._at >= len(self._arguments)

    def word(self, commands: Commands, path: tuple[str, ...]) -> str:
        """The next word of the command's name, after the global options before it."""
        while not self._done:
            argument = self._take()
            if argument in ("--help", "help"):
                raise HelpWanted(_overview(path, commands, self._globals))
            if argument in ("--version", "-V") and not path:
                raise VersionWanted
            if not argument.startswith("-") or argument == "-":
                return argument
            self._option(argument, {n: o for o in self._globals for n in o.names})
        raise HelpWanted(_overview(path, commands, self._globals), asked=False)

    def read_command(self, command: Command) -> None:
        self._fill(command.options)
        known = {n: o for o in self._globals for n in o.names if n.startswith("--")}
        known |= {name: option for option in command.options for name in option.names}
        words: list[str] = []
        while not self._done:
            argument = self._take()
            if argument == "--":
                words += self._arguments[self._at :]
                break
            if argument == "--help":
                raise HelpWanted(_usage(command, self._globals))
            if argument.startswith("-") and argument != "-":
                self._option(argument, known)
            else:
                words.append(argument)
        self._place(command, words)
        for option in command.options:
            if option.required and self.values[option.field] is None:
                raise UsageError(
                    f"{option.names[-1]} <{option.value}> is missing\n\n{_usage_line(command)}"
                )

    def _fill(self, options: Sequence[Option]) -> None:
        for option in options:
            empty: Any = False if option.value is None else [] if option.many else None
            self.values[option.field] = empty

    def _take(self) -> str:
        self._at += 1
        return self._arguments[self._at - 1]

    def _option(self, argument: str, known: Mapping[str, Option]) -> None:
        if argument.startswith("--"):
            name, equals, attached = argument.partition("=")
            option = self._find(name, known)
            if option.value is None and equals:
                raise UsageError(f"{name} takes no value")
            self._set(name, option, attached if equals else None)
            return
        letters = argument[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self._find(name, known)
            if option.value is None:
                self._set(name, option, None)
            else:
                self._set(name, option, letters.removeprefix("=") if letters else None)
                return

    def _find(self, name: str, known: Mapping[str, Option]) -> Option:
        option = known.get(name)
        if option is None:
            raise UsageError(f"unknown option {name}{_suggest(name, known)}")
        return option

    def _set(self, name: str, option: Option, value: str | None) -> None:
        if option.value is None:
            self.values[option.field] = True
            return
        if value is None:
            if self._done:
                raise UsageError(f"{name} needs a value: {name} <{option.value}>")
            value = self._take()
        if option.many:
            self.values[option.field].append(value)
        elif self.values[option.field] is not None:
            raise UsageError(f"{name} was given twice")
        else:
            self.values[option.field] = value

    def _place(self, command: Command, words: list[str]) -> None:
        for positional in command.positionals:
            if positional.many:
                self.values[positional.field], words = words, []
            else:
                self.values[positional.field] = words.pop(0) if words else None
            if positional.required and not self.values[positional.field]:
                raise UsageError(f"<{positional.name}> is missing\n\n{_usage_line(command)}")
        if words:
            raise UsageError(f"unexpected argument {words[0]!r}\n\n{_usage_line(command)}")


def _suggest(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else f" (see {PROGRAM} --help)"


def _no_command(path: tuple[str, ...], word: str, commands: Commands) -> str:
    known = {c[len(path)] for c in commands if c[: len(path)] == path and len(c) > len(path)}
    return f"unknown command {' '.join((*path, word))!r}{_suggest(word, sorted(known))}"


def _overview(path: tuple[str, ...], commands: Commands, global_options: Sequence[Option]) -> str:
    """The commands below a prefix, with what each does."""
    shown = [c for p, c in commands.items() if p[: len(path)] == path and not c.hidden]
    rows = [("  " + " ".join(c.path) + _arguments(c), _about(c)) for c in shown]
    lines = [] if path else [f"{PROGRAM}: an S3 object store of your own, compatible with Garage"]
    lines += [f"Usage: {PROGRAM} [OPTIONS] {' '.join((*path, '<COMMAND>'))}", "", "Commands:"]
    for name, about in rows:
        lines += [f"{name:<40}{about}"] if len(name) < 39 else [name, f"{'':<40}{about}"]
    return "\n".join([*lines, "", "Options:", *_option_lines(global_options), *_COMMON])


def _usage(command: Command, global_options: Sequence[Option]) -> str:
    lines = [_about(command), "", _usage_line(command)]
    if command.positionals:
        lines += ["", "Arguments:"]
        lines += [f"  {'<' + p.name + '>':<36}{p.about}" for p in command.positionals]
    lines += ["", "Options:", *_option_lines(command.options)]
    taken = {name for option in command.options for name in option.names}
    others = [o for o in global_options if not taken & {n for n in o.names if n[:2] == "--"}]
    return "\n".join([*lines, *_option_lines(others, short=False), *_COMMON[:1]])


def _about(command: Command) -> str:
    return command.about + (" (not available yet)" if command.run is None else "")


def _usage_line(command: Command) -> str:
    return f"Usage: {PROGRAM} {' '.join(command.path)}{_arguments(command)}"


def _arguments(command: Command) -> str:
    shown = " [OPTIONS]" if command.options else ""
    for positional in command.positionals:
        dots = "..." if positional.many else ""
        marks = "<>" if positional.required else "[]"
        shown += f" {marks[0]}{positional.name}{marks[1]}{dots}"
    return shown


def _option_lines(options: Sequence[Option], short: bool = True) -> list[str]:
    lines = []
    for option in options:
        names = [name for name in option.names if short or name.startswith("--")]
        shown = ", ".join(names) + (f" <{option.value}>" if option.value else "")
        lines.append(f"  {shown:<36}{option.about}")
    return lines


_COMMON: Final = (
    f"  {'--help':<36}Print this (-h is --rpc-host, as in Garage)",
    f"  {'-V, --version':<36}Print the version",
)
