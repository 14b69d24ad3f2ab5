"""Every invariant and every known fault names its tests, and the tests are there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.invariants import INVARIANTS, SEEDS, Promise
from tests.known_faults import KNOWN_FAULTS

ROOT = Path(__file__).parent.parent
PROMISES = (*INVARIANTS, *KNOWN_FAULTS)
COUNT = 45
FAULTS = 17
NOT_YET = ["CORS rules match AllowedHeader by case and never send Max-Age"]
"""All that has no test yet: whoever adds one shortens this list, nobody lengthens it unseen."""


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file: functions at its top, however they are made."""
    return frozenset(
        node.name
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    )


@cache
def workloads() -> frozenset[str]:
    tree = ast.parse((ROOT / "tests/sim/workloads.py").read_text())
    return frozenset(_keys_of(tree, "WORKLOADS"))


def _keys_of(tree: ast.Module, name: str) -> Iterator[str]:
    for node in tree.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == name
            and isinstance(node.value, ast.Dict)
        ):
            for key in node.value.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value


def faults_of(promise: Promise) -> list[str]:
    """What is wrong with one row."""
    wrong = []
    for test in promise.tests:
        path, _, name = test.partition("::")
        if not (ROOT / path).is_file() or name not in names_in(path):
            wrong.append(f"there is no test {test}")
    wrong += [f"no workload {name!r}" for name in promise.workloads if name not in workloads()]
    if bool(promise.workloads) != (SEEDS in promise.tests):
        wrong.append("workloads are run by the simulator's test, and that runs workloads")
    if bool(promise.tests) == bool(promise.not_yet):
        wrong.append("it needs either tests or a reason for having none")
    return wrong


def test_every_invariant_has_its_row() -> None:
    assert [row.name for row in INVARIANTS] == [f"I{number}" for number in range(1, COUNT + 1)]


def test_every_known_fault_has_its_row() -> None:
    assert len({row.name for row in KNOWN_FAULTS}) == len(KNOWN_FAULTS) == FAULTS


@pytest.mark.parametrize("promise", PROMISES, ids=[row.name for row in PROMISES])
def test_the_tests_of_a_row_are_there(promise: Promise) -> None:
    assert promise.says.endswith(".")
    assert not faults_of(promise)


def test_what_has_no_test_yet_is_named_here() -> None:
    assert [row.name for row in PROMISES if row.not_yet] == NOT_YET


@pytest.mark.parametrize(
    "row",
    [
        Promise("a", "A.", ("tests/test_promises.py::test_nothing",)),
        Promise("a", "A.", ("tests/no_such_file.py::test_nothing",)),
        Promise("a", "A.", (SEEDS,), ("no such workload",)),
        Promise("a", "A.", (SEEDS,)),
        Promise("a", "A."),
        Promise("a", "A.", ("tests/test_promises.py::test_every_invariant_has_its_row",), (), "b"),
    ],
)
def test_a_wrong_row_is_seen(row: Promise) -> None:
    assert faults_of(row)
