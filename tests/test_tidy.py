"""Tidy is a test: properties of the code itself, read from its syntax trees.

Imports point down, the pure packages stay pure, only named modules touch the world, and nothing
grows past what a reader can hold.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = "garage_lite"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("core.ids", "core.errors", "core.limits"),
    (
        "core.quorum",
        "core.ballot",
        "core.codec",
        "core.crdt",
        "core.hlc",
        "core.lease",
        "core.ports",
    ),
    ("core.model", "core.layout", "core.metalog", "core.table", "core.block", "core.wire"),
    ("core.disk",),
    ("core.cluster",),
    ("core.store",),
    ("core.workers",),
    ("units",),
    ("web", "config", "system", "logs"),
    ("node", "discovery"),
    ("server",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A group may import itself and what lies below it; names not listed fail."""

SIBLINGS = {
    ("core.ballot", "core.codec"),
    ("core.block", "core.model"),
    ("core.crdt", "core.codec"),
    ("core.table", "core.block"),
    ("core.table", "core.model"),
}
"""(importer, imported) allowed on one level: rules about rows know the rows, a merge of maps knows
how their values are ordered as bytes, an acceptor its own bytes, a change of references queues the
blocks they were to."""

IMPURE = ("core.disk", "core.cluster", "core.store", "core.workers")
BANNED_IN_PURE = {
    "aiohttp", "asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess",
    "tempfile", "threading", "time", "uuid",
}  # fmt: skip

WORLD: dict[str, tuple[str, ...]] = {
    "aiohttp": ("web", "node", "discovery"),
    "fcntl": ("core.disk.directory_lock", "core.disk.files"),
    "mmap": ("core.disk.files",),
    "multiprocessing": (),
    "os": ("config", "core.disk.files", "cli", "__main__", "system"),
    "pathlib": ("config", "cli", "core.disk.directory_lock", "web"),
    "random": (),
    "secrets": ("system",),
    "shutil": (),
    "signal": ("server",),
    "socket": ("core.cluster.sockets", "server"),
    "ssl": ("discovery",),
    "subprocess": (),
    "tempfile": (),
    "threading": (),
    "time": ("system",),
    "uuid": (),
}
"""Module of the world: who may import it. `core` speaks to it by its ports alone."""

CLOCK_CALLS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70


class Module(NamedTuple):
    name: str
    """Dotted, below the package; "" is the package itself."""
    path: Path
    tree: ast.Module


@functools.cache
def parsed(directory: str) -> tuple[tuple[Path, ast.Module], ...]:
    return tuple(
        (path, ast.parse(path.read_text(), str(path)))
        for path in sorted((ROOT / directory).rglob("*.py"))
        if "node_modules" not in path.parts
    )


def modules() -> Iterator[Module]:
    for path, tree in parsed(PACKAGE):
        dotted = ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        yield Module(dotted.removesuffix("__init__").rstrip("."), path, tree)


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of what is imported, anywhere in the module (also inside functions)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            module = node.module or ""
            # `from garage_lite.core import limits` imports the module core.limits.
            yield from (
                f"{module}.{alias.name}" if module in {PACKAGE, f"{PACKAGE}.core"} else module
                for alias in node.names
            )


def own_imports(module: Module) -> Iterator[str]:
    prefix = PACKAGE + "."
    yield from (
        name.removeprefix(prefix) for name in imported(module.tree) if name.startswith(prefix)
    )


def within(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(group + ".") for group in groups)


def place(name: str) -> tuple[int, str] | None:
    for rank, groups in enumerate(LAYERS):
        for group in groups:
            if within(name, (group,)):
                return rank, group
    return None


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_module_has_its_layer() -> None:
    homeless = [m.name for m in modules() if m.name not in {"", "core"} and place(m.name) is None]
    assert not homeless


def test_imports_point_down() -> None:
    bad = []
    for module in modules():
        here = place(module.name)
        for target in own_imports(module):
            there = place(target)
            if here is None or there is None:
                continue  # the package itself: its version
            up = there[0] > here[0]
            sideways = there[0] == here[0] and there[1] != here[1]
            if up or (sideways and (here[1], there[1]) not in SIBLINGS):
                bad.append(f"{module.name} imports {target}")
    assert not bad


def test_pure_packages_are_pure() -> None:
    bad = [
        f"{module.name} imports {name}"
        for module in modules()
        if within(module.name, ("core",)) and not within(module.name, IMPURE)
        for name in imported(module.tree)
        if name.split(".")[0] in BANNED_IN_PURE
    ]
    assert not bad


def test_only_named_modules_touch_the_world() -> None:
    bad = [
        f"{module.name} imports {name}"
        for module in modules()
        for name in sorted({name.split(".")[0] for name in imported(module.tree)})
        if name in WORLD and not within(module.name, WORLD[name])
    ]
    assert not bad


def test_time_comes_in_through_the_clock() -> None:
    bad = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in CLOCK_CALLS
    ]
    assert not bad


def test_nothing_outgrows_its_reader() -> None:
    bad = []
    for directory in (PACKAGE, "tests", "packaging"):
        for path, tree in parsed(directory):
            lines = len(path.read_text().splitlines())
            if lines > FILE_LINES_MAX:
                bad.append(f"{path.relative_to(ROOT)}: {lines} lines")
            for function in functions(tree):
                length = (function.end_lineno or function.lineno) - function.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    bad.append(f"{path.relative_to(ROOT)}: {function.name}: {length} lines")
    assert not bad


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for directory in (PACKAGE, "tests", "packaging")
        for path, tree in parsed(directory)
        if not ast.get_docstring(tree) and not (path.name == "__init__.py" and not tree.body)
    ]
    assert not silent


def test_names_say_what_a_thing_does() -> None:
    vague = re.compile(r"(Manager|Helper|Util|Utils|Base)$|^(Manager|Helper|Base)[A-Z]")
    bad = [
        f"{module.name}: {node.name}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and vague.search(node.name)
    ]
    bad += [m.name for m in modules() if {"util", "utils", "helpers"} & set(m.name.split("."))]
    assert not bad


def test_no_file_names_the_machine_it_was_written_on() -> None:
    places = re.compile(rb"(?<![\w./{}$-])/(work|root|home/\w+)/[\w.]")
    top = [path for path in ROOT.iterdir() if path.is_file()]
    trees = [
        path
        for directory in (PACKAGE, "tests", "packaging", ".ci")
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and not {"node_modules", "__pycache__"} & set(path.parts)
    ]
    bad = [str(path.relative_to(ROOT)) for path in top + trees if places.search(path.read_bytes())]
    assert not bad
