"""Masks and fits tried in the dock: what moves is what the job would say."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from cryorefine.io.mrc import write_map
from cryorefine.jobs.base import Curve
from cryorefine.maps import filters, masks
from napari_cryorefine.plots import CurvePlot
from napari_cryorefine.widgets import EXPLORER_DOCK, PostProcessForm

SECONDS = 30_000
SIZE, PIXEL = 40, 2.5


@pytest.fixture
def inputs(project):
    """Half maps of a particle of random density in a sphere, a good mask, and one that is too small."""
    rng = np.random.default_rng(5)
    good = masks.soft_sphere((SIZE,) * 3, 11, 5)
    particle = filters.lowpass(rng.normal(size=(SIZE,) * 3), PIXEL, 8.0) * good
    for half in (1, 2):
        noise = rng.normal(0, 0.5 * particle.std(), particle.shape)
        write_map(project / f"half{half}.mrc", (particle + noise).astype(np.float32), PIXEL)
    write_map(project / "good.mrc", good, PIXEL)
    return good


@pytest.fixture
def form(qtbot, viewer, inputs, messages):
    """Form of PostProcess with the half maps and the good mask."""
    form = PostProcessForm(viewer)
    qtbot.addWidget(form)
    form.page.update(half_map="half1.mrc", mask="good.mrc", autob_lowest_resolution=30.0)
    return form


@pytest.fixture
def explorer(form, viewer, qtbot):
    """Dock that the form's button opens."""
    qtbot.mouseClick(form.explore_button, Qt.MouseButton.LeftButton)
    explorer = viewer.window.dock_widgets[EXPLORER_DOCK]
    wait(qtbot, explorer)
    return explorer


def wait(qtbot, explorer) -> None:
    qtbot.waitUntil(lambda: not explorer.busy, timeout=SECONDS)


def choose(qtbot, explorer, name: str) -> None:
    """Choose a mask with the keys, as in any list."""
    while explorer.mask.currentText() != name:
        there = explorer.mask.findText(name) > explorer.mask.currentIndex()
        qtbot.keyClick(explorer.mask, Qt.Key.Key_Down if there else Qt.Key.Key_Up)
    wait(qtbot, explorer)


def drag(plot, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag with the mouse between two points of a plot, given in its own coordinates."""
    box, target = plot.plot.getPlotItem().vb, plot.plot.viewport()
    first, last = (
        QPointF(plot.plot.mapFromScene(box.mapViewToScene(QPointF(*place)))) for place in (start, end)
    )
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    events = [(QEvent.Type.MouseMove, first, none, none), (QEvent.Type.MouseButtonPress, first, left, left)]
    for step in np.linspace(0, 1, 10):
        events.append((QEvent.Type.MouseMove, first + (last - first) * float(step), none, left))
    events.append((QEvent.Type.MouseButtonRelease, last, left, none))
    for kind, place, button, held in events:
        everywhere = target.mapToGlobal(place.toPoint())
        event = QMouseEvent(kind, place, QPointF(everywhere), button, held, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(target, event)
        QApplication.processEvents()
        time.sleep(0.02)  # pyqtgraph looks at the mouse sixty times a second


def run(form, qtbot) -> str:
    """Run the form's job and return what it says in the end."""
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert "Done" in form.status.text(), form.status.text()
    return form.figures.text()


def test_the_dock_shows_what_the_job_will_say(form, viewer, explorer, qtbot):
    assert list(explorer.fsc.curves) == ["corrected", "unmasked", "masked", "phase-randomised"]
    assert {"original", "FSC-weighted", "sharpened", "fit"} == set(explorer.guinier.curves)
    layer = viewer.layers["sharpened (tried out)"]
    tried = layer.data.copy()
    assert not Path("PostProcess").exists()
    said = run(form, qtbot)
    resolution = said.partition("Resolution: ")[2].split()[0]
    assert f"{float(resolution):.2f} Å" in explorer.figures.text()
    np.testing.assert_allclose(viewer.layers["postprocess"].data, tried, atol=1e-5 * np.ptp(tried))


def test_another_mask_is_tried_without_leaving_the_dock(form, viewer, explorer, inputs, qtbot):
    before, text = explorer.fsc.curves["corrected"][1].copy(), explorer.figures.text()
    tight = np.where(masks.soft_sphere((SIZE,) * 3, 6, 0) > 0.5, 1, 0).astype(np.uint8)
    viewer.add_labels(tight, name="tight", scale=(PIXEL,) * 3, units="angstrom")
    explorer.mask.showPopup()
    explorer.mask.hidePopup()
    assert explorer.mask.currentText() == "good.mrc"
    choose(qtbot, explorer, "tight")
    assert np.abs(explorer.fsc.curves["corrected"][1] - before).max() > 0.01
    assert explorer.figures.text() != text
    choose(qtbot, explorer, "No mask")
    assert list(explorer.fsc.curves) == ["unmasked"]
    qtbot.mouseClick(explorer.use_button, Qt.MouseButton.LeftButton)
    assert form.page["mask"].value is None


def test_the_range_of_the_fit_is_dragged(form, viewer, explorer, qtbot):
    before, sharpened = explorer.figures.text(), viewer.layers["sharpened (tried out)"].data.copy()
    left, right = explorer.guinier._range.getRegion()
    assert left == pytest.approx(1 / 30**2)
    viewer.window.resize(1200, 900)
    viewer.show()
    with qtbot.waitExposed(explorer):
        explorer.show()
    height = np.mean(explorer.guinier.plot.getPlotItem().viewRange()[1])
    drag(explorer.guinier, (right, height), (1 / 9**2, height))
    wait(qtbot, explorer)
    assert explorer.figures.text() != before
    assert not np.array_equal(viewer.layers["sharpened (tried out)"].data, sharpened)
    qtbot.mouseClick(explorer.use_button, Qt.MouseButton.LeftButton)
    assert form.page["autob_lowest_resolution"].value == 30
    assert form.page["autob_highest_resolution"].value == pytest.approx(9, abs=0.3)
    b_factor = explorer.figures.text().partition("B-factor ")[2].split()[0]
    said = run(form, qtbot)
    assert float(said.partition("B-factor: ")[2].split()[0]) == pytest.approx(float(b_factor), abs=0.6)


def test_a_range_that_holds_too_little_is_told_and_can_be_widened(explorer, qtbot):
    explorer.guinier._range.setRegion((1 / 9.0**2, 1 / 8.9**2))
    wait(qtbot, explorer)
    assert "too few shells" in explorer.words.text()
    explorer.guinier._range.setRegion((1 / 30**2, 1))
    wait(qtbot, explorer)
    assert "too few shells" not in explorer.words.text()


def test_a_form_that_is_not_filled_in_opens_no_dock(form, viewer, messages):
    form.page["half_map"].value = None
    form.explore()
    assert "empty" in messages[-1][1]
    assert EXPLORER_DOCK not in viewer.window.dock_widgets


def test_the_threshold_is_dragged_and_tells_the_resolution(qtbot):
    plot = CurvePlot("FSC")
    qtbot.addWidget(plot)
    plot.resize(500, 300)
    with qtbot.waitExposed(plot):
        plot.show()
    frequency = np.arange(11) / 100
    plot.show_curve(Curve("FSC", list(frequency), {"corrected": list(1 - 10 * frequency)}))
    # 0.143 is crossed after shell 8: 100 / 8 A.
    assert plot.threshold.label.format == "0.143: 12.50 Å"

    drag(plot, (0.09, 0.143), (0.09, 0.55))
    assert plot.threshold.value() == pytest.approx(0.55, abs=0.02)
    assert plot.threshold.label.format.endswith(": 25.00 Å")
    plot.threshold.setValue(0.0)
    assert plot.resolution_at(2.0) == np.inf


def test_dragging_the_fit_does_not_make_the_fsc_anew(explorer, viewer, qtbot, monkeypatch):
    from cryorefine.maps import solvent

    tight = (masks.soft_sphere((SIZE,) * 3, 9, 0) > 0.5).astype(np.uint8)
    layer = viewer.add_labels(tight, name="tight", scale=(PIXEL,) * 3, units="angstrom")
    explorer.mask.showPopup()
    explorer.mask.hidePopup()
    made, correlate = [], solvent.solvent_corrected_fsc
    monkeypatch.setattr(
        solvent, "solvent_corrected_fsc", lambda *args, **more: made.append(1) or correlate(*args, **more)
    )
    choose(qtbot, explorer, "tight")
    before = explorer.fsc.curves["corrected"][1].copy()
    made.clear()
    for end in (1 / 8**2, 1 / 9**2):
        explorer.guinier._range.setRegion((1 / 30**2, end))
        wait(qtbot, explorer)
    assert not made
    # A mask that has been painted in is tried again by choosing it again.
    layer.data[:, :15] = 0
    explorer.mask.activated.emit(explorer.mask.currentIndex())
    wait(qtbot, explorer)
    assert made
    assert not np.array_equal(explorer.fsc.curves["corrected"][1], before)


def test_closing_the_dock_stops_what_it_tries(explorer, viewer, qtbot):
    explorer.guinier.show_range(25.0, 0.0)
    explorer.ask()
    shown = []
    explorer._latest.made.connect(shown.append)
    viewer.window.remove_dock_widget(explorer)
    wait(qtbot, explorer)
    assert not shown
    qtbot.addWidget(explorer)
