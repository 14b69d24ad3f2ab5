"""Run one seed of one workload again: python -m tests.sim.replay WORKLOAD SEED [COUNT].

With COUNT, that many seeds from SEED on; the failing ones are named.
"""

from __future__ import annotations

import logging
import sys
import time

from tests.sim.simulation import Violation, simulate
from tests.sim.workloads import WORKLOADS


def main(arguments: list[str]) -> int:
    if len(arguments) not in (2, 3) or arguments[0] not in WORKLOADS:
        names = ", ".join(f'"{name}"' for name in WORKLOADS)
        sys.stderr.write(f"{__doc__}\nworkloads: {names}\n")
        return 2
    name, seed = arguments[0], int(arguments[1])
    count = int(arguments[2]) if len(arguments) > 2 else 1
    if count == 1:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    else:
        logging.disable(logging.CRITICAL)
    failed = 0
    begin = time.process_time()
    for number in range(seed, seed + count):
        try:
            simulate(WORKLOADS[name], number)
        except Exception as error:
            failed += 1
            if count == 1:
                raise
            first = str(error).splitlines()[:1]
            kind = type(error).__name__ if isinstance(error, Violation) else repr(error)[:150]
            sys.stdout.write(f"{name} {number}: {kind} {first}\n")
    spent = (time.process_time() - begin) / count
    sys.stdout.write(f"{name}: {failed} of {count} failed, {spent:.3f} CPU-s each\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
