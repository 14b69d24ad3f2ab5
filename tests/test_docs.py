"""The README is true, both ways: what the code has is in it, what it names is in the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from garage_lite.cli.grammar import COMMANDS
from garage_lite.config.schema import MEANINGLESS_KEYS, NOT_YET_KEYS, ROOT_KEYS, SECTIONS
from garage_lite.web.s3.operations import OPERATIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

DIRECTORY_KEYS = {"path", "capacity", "read_only"}
"""Of an entry of data_dir; they stand in the README among the keys."""


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert match is not None, f"README has no section {title!r}"
    return match[1]


def fenced(text: str) -> list[list[str]]:
    """The lines of each fenced block."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)
    return [block.splitlines() for block in blocks]


def ticked(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def test_set_up_is_one_line_each() -> None:
    for title, verb in (("Run it", "run"), ("Test it", "test")):
        (block,) = fenced(section(title))
        assert block == [f"python3 packaging/bootstrap.py {verb}"]


def test_s3_operations() -> None:
    text = section("S3 operations")
    table = re.findall(r"^\| \w+ \| ([^|]+) \|$", text, re.M)
    claimed = " ".join(table).split()
    assert sorted(claimed) == sorted(name for name, each in OPERATIONS.items() if each.built)
    rest = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z0-9]+)+\b", text)) & set(OPERATIONS)
    assert rest <= set(claimed), "named in the text, not in the table"


def test_configuration_keys() -> None:
    known = set(ROOT_KEYS) | {key for keys in SECTIONS.values() for key in keys}
    text = section("Configuration")
    text = text[: text.index("Environment:")]
    words = {
        word for tick in ticked(text) for word in re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)+", tick)
    }
    assert known - set(ticked(text)) == set(), "in the code, not in the README"
    assert words - known - set(SECTIONS) - DIRECTORY_KEYS == set(), "in the README alone"
    assert {f"[{name}]" for name in SECTIONS} <= set(ticked(text))


def test_a_key_without_effect_says_so() -> None:
    """Nobody should believe that a setting works which nothing reads."""
    code = "\n".join(
        path.read_text()
        for path in sorted((ROOT / "garage_lite").rglob("*.py"))
        if path.parent.name != "config"
    )
    later = {key.partition(".")[0] for key in NOT_YET_KEYS if not key.startswith("admin.")}
    silent = []
    for section_name, keys in {"": ROOT_KEYS, **SECTIONS}.items():
        for name, key in keys.items():
            shown = f"{section_name}.{name}" if section_name else name
            excused = shown in NOT_YET_KEYS or section_name in later or name in MEANINGLESS_KEYS
            field = (key.name or name).removesuffix("_file")
            read = re.search(rf"\.{field}\b", code) or name == "allow_world_readable_secrets"
            if not read and not excused:
                silent.append(shown)
    assert not silent, "neither read nor named as without effect"
    listed = (
        section("Configuration").partition("without effect yet")[2].partition("Accepted and")[0]
    )
    named = {key.rpartition(".")[2] for key in NOT_YET_KEYS}
    assert named <= set(ticked(listed))


def test_environment() -> None:
    """Names the code composes from a prefix are found by their parts, in capitals."""
    code = "\n".join(
        path.read_text() for path in sorted((ROOT / "garage_lite").rglob("*.py"))
    ).upper()
    documented = set(re.findall(r"GARAGE_[A-Z_]*[A-Z]", section("Configuration")))
    assert {name for name in documented if name.removeprefix("GARAGE_") not in code} == set()
    literal = set(re.findall(r"GARAGE_[A-Z_]*[A-Z]", code)) - {"GARAGE_LITE"}
    assert literal <= documented, "in the code, not in the README"


def test_commands() -> None:
    text = section("Commands")
    table, absent = text.split("Known, but not there yet")
    claimed = [tick for tick in ticked(table) if not tick.startswith("garage-lite")]
    visible = {" ".join(path): c for path, c in COMMANDS.items() if not c.hidden}
    assert sorted(claimed) == sorted(name for name, c in visible.items() if c.run)
    assert sorted(ticked(absent)) == sorted(name for name, c in visible.items() if not c.run)


def test_example_commands_exist() -> None:
    for block in fenced(README):
        for line in block:
            words = shlex.split(line, comments=True) if line.startswith("garage-lite ") else []
            if words[1:2] == ["-c"]:
                named = tuple(words[3:5])
                assert named in COMMANDS or named[:1] in COMMANDS, line


def test_files_the_tour_names_exist() -> None:
    names = {
        tick
        for tick in ticked(README)
        if re.fullmatch(r"[\w./-]+\.(py|md)|[\w/]+/", tick) and not tick.startswith(("~", "http"))
    }
    assert names, "the tour names files"
    missing = []
    for name in names:
        anywhere = (ROOT / "garage_lite").rglob(name.rstrip("/"))
        if not (ROOT / name).exists() and not any(anywhere):
            missing.append(name)
    assert not missing
