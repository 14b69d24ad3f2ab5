"""The simulator sees: a sample of the seeded faults; `python -m tests.sim.mutants` runs all."""

from __future__ import annotations

import pytest

from tests.sim.mutants import hunt
from tests.sim.mutations import MUTANTS

SEEDS = 40
SAMPLE = (
    "write quorum one less",
    "read quorum one less",
    "a minority elects a layout",
    "conditions are not looked at",
    "settings are changed without telling",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_is_caught(name: str) -> None:
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    assert hunt(mutant, range(SEEDS)) is not None, "it survived"


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
