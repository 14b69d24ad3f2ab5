"""The plan of scrub, and the pace of background work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block.frame import LEAVES
from garage_lite.core.block.pace import REST_US_MAX, STEPS_REMEMBERED, Pace
from garage_lite.core.block.scrub import (
    DAY_US,
    NEXT,
    PAUSE_US,
    Phase,
    ScrubState,
    first_state,
    next_run_us,
)

NOW = 1_700_000_000_000_000
RANDOM = b"\x80\x00\x00\x00"
RUNNING = ScrubState(Phase.RUNNING, 0, b"d", 77, completed_us=5, corruptions=3)


@given(st.binary(min_size=4, max_size=4))
def test_runs_are_25_to_35_days_apart(random: bytes) -> None:
    assert 25 * DAY_US <= next_run_us(NOW, random) - NOW < 35 * DAY_US


def test_the_spread_is_whole() -> None:
    assert next_run_us(0, bytes(4)) == 25 * DAY_US
    assert next_run_us(0, b"\x80\0\0\0") == 30 * DAY_US
    assert next_run_us(0, b"\xff" * 4) > 34.9 * DAY_US


def test_a_run_starts_when_due_and_ends_with_the_next_one_planned() -> None:
    waiting = first_state(NOW, RANDOM)
    assert waiting.on_time(waiting.due_us - 1) == waiting
    running = waiting.on_time(waiting.due_us)
    assert running.phase is Phase.RUNNING and (running.directory, running.leaf) == (b"", 0)
    done = replace(running, directory=b"d", leaf=9).completed(NOW, RANDOM)
    assert done == ScrubState(Phase.WAITING, next_run_us(NOW, RANDOM), completed_us=NOW)


def test_a_pause_keeps_the_place_and_ends_by_itself() -> None:
    paused = RUNNING.after("pause", NOW, RANDOM)
    assert paused == replace(RUNNING, phase=Phase.PAUSED, due_us=NOW + PAUSE_US)
    assert paused.on_time(NOW + PAUSE_US - 1) == paused
    assert paused.on_time(NOW + PAUSE_US).phase is Phase.RUNNING
    assert paused.on_time(NOW + PAUSE_US).leaf == 77
    resumed = paused.after("resume", NOW, RANDOM)
    assert resumed == RUNNING


def test_a_cancel_gives_the_place_up() -> None:
    cancelled = RUNNING.after("cancel", NOW, RANDOM)
    assert cancelled == ScrubState(Phase.WAITING, next_run_us(NOW, RANDOM), b"", 0, 5, 3)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("command", ["start", "pause", "resume", "cancel", "dance"])
def test_commands_that_make_no_sense_are_refused(phase: Phase, command: str) -> None:
    state = replace(RUNNING, phase=phase).after(command, NOW, RANDOM)
    assert (state is not None) == ((phase, command) in NEXT)
    if state is not None:
        assert state.phase is NEXT[phase, command]


def test_the_state_is_kept() -> None:
    assert ScrubState.decode(RUNNING.encode()) == RUNNING


def test_progress_goes_through_the_directories() -> None:
    ids = [b"b", b"d"]
    assert RUNNING.progress(ids) == pytest.approx(0.5 + 77 / LEAVES / 2)
    assert replace(RUNNING, directory=b"", leaf=0).progress(ids) == 0
    assert first_state(NOW, RANDOM).progress(ids) == 0
    assert RUNNING.progress([]) == 0


def test_work_rests_in_proportion_to_the_average_step() -> None:
    pace = Pace()
    assert pace.rest_us(100, 2) == 200
    assert pace.rest_us(300, 2) == 400
    assert pace.rest_us(200, 0) == 0
    for _ in range(STEPS_REMEMBERED):
        last = pace.rest_us(50, 4)
    assert last == 200
    assert pace.rest_us(10**12, 1000) == REST_US_MAX
