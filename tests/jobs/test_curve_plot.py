"""Plots of curves: round ticks, curves where they belong, names in the legend."""

import re

import pytest

from cryorefine.jobs.curve_plot import Line, Plot, draw, ticks


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.0, 0.5), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        ((0.0, 0.155), ["0.000", "0.025", "0.050", "0.075", "0.100", "0.125", "0.150"]),
        ((-11.2, -4.1), ["−10", "−8", "−6"]),
        ((-0.1, 1.05), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ((0.0, 8000.0), ["0", "2000", "4000", "6000", "8000"]),
    ],
)
def test_ticks_are_round_numbers_within_the_ends(ends, expected):
    assert [words for _, words in ticks(*ends)] == expected
    assert all(ends[0] <= value <= ends[1] + 1e-9 for value, _ in ticks(*ends))


def test_a_curve_runs_from_corner_to_corner_of_its_range():
    curve = Line((2.0, 4.0), (10.0, 30.0), "rising")
    plot = Plot("title", "x", "y", (2.0, 4.0), (10.0, 30.0), [curve])
    page = draw(plot)
    first = page.content().decode().split("Q")[0]
    frame = [float(word) for word in re.search(r"(\S+ \S+ \S+ \S+) re", first)[1].split()]
    start, end = ([float(w) for w in re.search(rf"(\S+ \S+) {pen}\b", first)[1].split()] for pen in "ml")
    assert start == frame[:2]
    assert end == pytest.approx([frame[0] + frame[2], frame[1] + frame[3]])
    assert set("title" + "rising") <= page.characters
