"""Seeded faults of the protocol: each must be caught by a workload.

    python -m tests.sim.mutants [NAME ...]      all of them, or some; ends with 1 if one survives

A mutant is a patch of one rule, given back afterwards. A simulator that lets one live can't see
that rule being broken. The list is tests/sim/mutations.py.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.sim.simulation import simulate
from tests.sim.workloads import WORKLOADS

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    name: str
    workloads: tuple[str, ...]
    """Any of which should catch it, the likeliest first."""
    patch: Patch


@dataclass(frozen=True)
class Caught:
    workload: str
    seed: int
    by: str


def hunt(mutant: Mutant, seeds: Sequence[int]) -> Caught | None:
    """Run the mutant's workloads until one complains that does not complain without it; None: it
    survived all seeds."""
    for seed in seeds:
        for name in mutant.workloads:
            with pytest.MonkeyPatch.context() as patching:
                mutant.patch(patching)
                by = _complaint(name, seed)
            if by is not None and _complaint(name, seed) is None:
                return Caught(name, seed, by)
    return None


def _complaint(name: str, seed: int) -> str | None:
    try:
        simulate(WORKLOADS[name], seed)
    except (TypeError, AttributeError, NameError):
        raise  # the mutant itself is broken
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def main(names: list[str]) -> int:
    from tests.sim.mutations import MUTANTS

    logging.disable(logging.CRITICAL)
    survived = []
    for mutant in MUTANTS:
        if names and not any(name in mutant.name for name in names):
            continue
        began = time.process_time()
        try:
            caught = hunt(mutant, range(150))
            how = f"{caught.workload} {caught.seed}: {caught.by[:90]}" if caught else "SURVIVED"
        except Exception as error:
            caught, how = None, f"DOES NOT FIT: {error!r}"
        spent = time.process_time() - began
        sys.stdout.write(f"{mutant.name:<45} {spent:6.1f} CPU-s  {how}\n")
        sys.stdout.flush()
        if caught is None:
            survived.append(mutant.name)
    sys.stdout.write(f"{len(survived)} survived {survived or ''}\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
