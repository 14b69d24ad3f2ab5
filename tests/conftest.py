"""Settings for every test: how hard hypothesis looks.

The default profile is the same on every run, so that a red CI can be repeated; `deep` (choose it
with HYPOTHESIS_PROFILE=deep) draws anew each time and looks much longer.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    # Timings of a busy two-core machine say nothing about the test.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=3000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
