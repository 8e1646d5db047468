"""How far and how long still, in words."""

from __future__ import annotations

from cryorefine.jobs.base import Figures, Progress
from napari_cryorefine.progress import Stopwatch, duration_text, figures_text


def test_the_time_left_follows_from_the_pace_of_the_stage():
    now = [0.0]
    clock = Stopwatch(lambda: now[0])
    assert clock.seconds_left(Progress("Expectation", 100, 1000)) is None
    now[0] = 10.0
    # 200 in 10 s: the other 700 take 35 s.
    assert clock.seconds_left(Progress("Expectation", 300, 1000)) == 35.0
    # A new stage has a pace of its own.
    assert clock.seconds_left(Progress("Maximisation", 1, 4)) is None
    # So has the same stage of the next iteration.
    now[0] = 30.0
    clock.seconds_left(Progress("Expectation", 500, 1000))
    now[0] = 31.0
    assert clock.seconds_left(Progress("Expectation", 0, 1000)) is None


def test_no_time_is_told_where_the_total_is_unknown_or_reached():
    clock = Stopwatch(lambda: 5.0)
    assert clock.seconds_left(Progress("Reading", 5, 0)) is None
    assert clock.seconds_left(Progress("Reading", 5, 5)) is None


def test_durations_are_short():
    assert [duration_text(s) for s in (0.2, 40, 89, 180, 7500)] == [
        "1 s",
        "40 s",
        "89 s",
        "3 min",
        "2 h 05 min",
    ]


def test_figures_are_lines_with_units():
    text = figures_text(Figures({"iteration": 5, "resolution (A)": 7.30839, "b_factor (A^2)": -80.0}))
    assert text == "Iteration: 5\nResolution: 7.308 Å\nB-factor: -80 Å²"
