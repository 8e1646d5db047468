"""The monitor follows a refinement through its folder, and stops it and goes on with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from tests.jobs.refinement_folder import NAME, iterate, refinement

from cryorefine.compute.executor import DASHBOARD_NOTICE, NO_DASHBOARD
from cryorefine.io.mrc import read_map
from cryorefine.jobs import lock, refine3d
from cryorefine.jobs.base import JobAborted, Progress
from cryorefine.jobs.command import command
from cryorefine.jobs.folder import status
from cryorefine.jobs.relion_job import read_job
from cryorefine.jobs.signs_of_life import KILLED, Life
from napari_cryorefine.monitor import Monitor, show_monitor
from napari_cryorefine.monitor_layers import DIFFERENCE, HALF_2
from napari_cryorefine.monitor_reading import figures_line, time_text

SECONDS = 300_000  # for the first time kernels are compiled as well, on a busy machine

SIMULATION = textwrap.dedent("""
    from pathlib import Path
    from cryorefine.refine.atoms import random_protein
    from cryorefine.refine.particle_set import OpticsGroup
    from cryorefine.refine.simulation import simulate_particles

    atoms = random_protein(40, radius=25.0, symmetry="D2")
    group = OpticsGroup("one", 4.0, 24, 300.0, 2.7, 0.1)
    made = simulate_particles(Path(), atoms, [group], 60, snr=1.0, micrographs=1)
    print(made.particles, made.map)
""")


@pytest.fixture
def monitor(viewer, qtbot, project):
    """Monitor below the canvas, which looks at its folder when it is told to."""
    panel = show_monitor(viewer, project / NAME)
    settled(panel, qtbot)
    return panel


@pytest.fixture
def running(project):
    """Refinement in iteration 3."""
    job = refinement(project)
    iterate(job, 2)
    next(job)
    yield job
    job.close()


def settled(panel, qtbot):
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)


def look(panel, qtbot):
    settled(panel, qtbot)
    panel.refresh()
    settled(panel, qtbot)


def until(panel, qtbot, wanted):
    """Look at the folder until something is as wanted; the window is not shown, so its timer rests."""

    def looked():
        panel.refresh()
        return wanted()

    qtbot.waitUntil(looked, timeout=SECONDS)


def maps(viewer):
    return [layer.name for layer in viewer.layers]


def shown(viewer):
    return [layer.name for layer in viewer.layers if layer.visible]


def test_it_follows_the_newest_iteration_until_a_person_looks_at_another(running, monitor, viewer, qtbot):
    assert maps(viewer) == ["half 1, iteration 2", "half 2, iteration 2", "half 1 - half 2, iteration 2"]
    assert "Running (process" in monitor.state.text()
    iterate(running, 3)
    look(monitor, qtbot)
    assert maps(viewer)[2] == "half 1 - half 2, iteration 3"
    halves = [read_map(NAME / f"run_it003_half{half}_class001.mrc").data for half in (1, 2)]
    for layer, data in zip(viewer.layers, (*halves, halves[0] - halves[1]), strict=True):
        np.testing.assert_array_equal(layer.data, data)
        assert tuple(layer.scale) == (2.5, 2.5, 2.5)
        assert str(layer.units[0]) == "angstrom"
    qtbot.keyClick(monitor.slider, Qt.Key.Key_Left)
    settled(monitor, qtbot)
    assert not monitor.follow.isChecked()
    iterate(running, 4)
    look(monitor, qtbot)
    assert maps(viewer)[0] == "half 1, iteration 2"
    assert monitor.number.text() == "<b>iteration 2</b> of 4"
    qtbot.keyClick(monitor.slider, Qt.Key.Key_End)
    settled(monitor, qtbot)
    assert monitor.follow.isChecked()
    assert maps(viewer)[0] == "half 1, iteration 4"


def test_contrast_and_level_are_shared_and_stay_from_iteration_to_iteration(running, monitor, viewer, qtbot):
    one, two, difference = viewer.layers
    low, high = one.contrast_limits
    assert tuple(difference.contrast_limits) == pytest.approx((-(high - low) / 2, (high - low) / 2))
    two.contrast_limits = (0.5, 2.5)
    two.iso_threshold = 1.5
    assert tuple(one.contrast_limits) == (0.5, 2.5)
    assert tuple(difference.contrast_limits) == (-1, 1)
    monitor.choose(1)
    settled(monitor, qtbot)
    assert [layer.iso_threshold for layer in viewer.layers] == [1.5, 1.5, 1.5]
    assert tuple(one.contrast_limits) == (0.5, 2.5)
    assert tuple(difference.contrast_limits) == (-1, 1)


def test_what_is_seen_is_chosen_and_stays(running, monitor, viewer, qtbot):
    assert shown(viewer) == ["half 1, iteration 2", "half 2, iteration 2"]
    for view, name in ((DIFFERENCE, "half 1 - half 2, iteration 2"), (HALF_2, "half 2, iteration 2")):
        monitor.view.setCurrentText(view)
        assert shown(viewer) == [name]
    monitor.choose(1)
    settled(monitor, qtbot)
    assert shown(viewer) == ["half 2, iteration 1"]


def test_the_dashboard_of_dask_is_a_click_away_while_the_job_runs(running, monitor, qtbot):
    assert monitor.dashboard.isHidden()
    notice = {"event": "Notice", "message": f"{DASHBOARD_NOTICE}http://node1:38169/status", "warning": False}
    with (NAME / "progress.jsonl").open("a") as file:
        file.write(f"{json.dumps(notice)}\n")
    look(monitor, qtbot)
    assert not monitor.dashboard.isHidden()
    assert 'href="http://node1:38169/status"' in monitor.dashboard.text()
    assert monitor.dashboard.openExternalLinks()
    running.close()
    look(monitor, qtbot)
    assert monitor.dashboard.isHidden()


def test_without_bokeh_it_is_said_what_to_install(running, monitor, qtbot):
    notice = {"event": "Notice", "message": f"{DASHBOARD_NOTICE}{NO_DASHBOARD}", "warning": False}
    with (NAME / "progress.jsonl").open("a") as file:
        file.write(f"{json.dumps(notice)}\n")
    look(monitor, qtbot)
    assert monitor.dashboard.text() == "No Dask dashboard: install bokeh"
    assert 'pip install "napari-cryorefine[cluster]"' in monitor.dashboard.toolTip()


def test_curves_and_views_are_those_of_the_chosen_iteration(running, monitor, viewer, qtbot):
    iterate(running, 4)
    look(monitor, qtbot)
    assert np.isnan(monitor.fsc.faint[1]).sum() == 4  # a gap after each
    assert list(monitor.fsc.curves) == ["iteration 4"]
    monitor.trends.clicked.emit(3)
    settled(monitor, qtbot)
    assert list(monitor.fsc.curves) == ["iteration 3"]
    np.testing.assert_allclose(monitor.fsc.curves["iteration 3"][1], monitor.chosen.fsc)
    assert monitor.trends._marks[0].value() == 3
    assert monitor.sky.title.text() == "60 particles, D2, iteration 3"
    assert monitor.sky.sky.values.sum() == 240  # with their mates
    viewer.theme = "light"
    viewer.theme = "dark"


def test_a_click_in_a_plot_chooses_the_iteration(running, monitor, viewer, qtbot):
    for number in (3, 4, 5):
        iterate(running, number)
    look(monitor, qtbot)
    plot = monitor.trends.plots[1]
    centre = plot.vb.viewRect().center()
    centre.setX(2.2)
    spot = monitor.trends.mapFromScene(plot.vb.mapViewToScene(centre))
    qtbot.mouseClick(monitor.trends.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(spot.x(), spot.y()))
    qtbot.waitUntil(lambda: monitor.chosen.number == 2, timeout=SECONDS)


def test_it_is_stopped_after_the_iteration_and_says_what_it_can_go_on_from(running, monitor, qtbot):
    steering = monitor.steering
    assert steering.stop_now.isVisibleTo(monitor)
    assert not steering.continue_button.isVisibleTo(monitor)
    qtbot.mouseClick(steering.stop_after, Qt.MouseButton.LeftButton)
    settled(monitor, qtbot)
    assert "stops after this iteration" in monitor.state.text()
    with pytest.raises(JobAborted):
        for _ in running:
            pass
    look(monitor, qtbot)
    assert monitor.state.text() == "Stopped by request."
    assert monitor.chosen.number == 3  # whole
    assert steering.continue_button.text() == "Continue from iteration 3"
    monitor.choose(1)
    assert steering.continue_button.text() == "Continue from iteration 1 as Refine3D/job002"
    assert not steering.stop_now.isVisibleTo(monitor)


def test_a_killed_job_is_told_and_one_of_another_machine_is_not_called_dead(running, monitor, project, qtbot):
    folder = project / NAME
    owner = json.loads((folder / lock.LOCK_FILE).read_text())
    (folder / lock.LOCK_FILE).write_text(json.dumps(owner | {"host": "node7"}))
    long_ago = time.time() - 1200
    os.utime(folder / lock.LOCK_FILE, (long_ago, long_ago))
    look(monitor, qtbot)
    assert "No sign of life for 20 min" in monitor.state.text()
    assert monitor.steering.release_button.isVisibleTo(monitor)
    assert status(folder) == "running"
    qtbot.mouseClick(monitor.steering.release_button, Qt.MouseButton.LeftButton)
    look(monitor, qtbot)
    assert monitor.state.text() == KILLED
    assert status(folder) == "failed"
    assert monitor.steering.continue_button.text() == "Continue from iteration 2"


def test_a_finished_refinement_goes_on_from_earlier_iterations_only(project, viewer, qtbot):
    for _ in refinement(project, last=3):
        pass
    panel = show_monitor(viewer, NAME)
    settled(panel, qtbot)
    assert panel.number.text() == "<b>iteration 3 (final)</b> of 3"
    assert not panel.steering.continue_button.isEnabled()
    assert "choose one with the slider" in panel.steering.words.text()
    panel.choose(2)
    assert panel.steering.continue_button.text() == "Continue from iteration 2 as Refine3D/job002"
    assert panel.steering.continue_button.isEnabled()
    # As RELION's own, which has neither events nor checkpoints:
    for path in (*NAME.glob("*.npz"), NAME / "progress.jsonl", NAME / "RELION_JOB_EXIT_SUCCESS"):
        path.unlink()
    assert show_monitor(viewer, NAME) is panel
    settled(panel, qtbot)
    assert panel.state.text() == "Finished."
    assert not panel.steering.continue_button.isVisibleTo(panel)
    assert "gone on with by RELION" in panel.steering.words.text()
    # Another folder shows nothing of this one.
    show_monitor(viewer, project / "Refine3D/job009")
    settled(panel, qtbot)
    assert panel.number.text() == ""
    assert len(panel.fsc.faint[0]) == 0


def test_another_job_takes_the_place_of_the_first_and_leaves_a_persons_layers(
    running, monitor, viewer, qtbot
):
    mine = viewer.add_image(np.zeros((4, 4, 4)), name="mine", units="angstrom")
    running.close()
    NAME.rename("Refine3D/job002")
    monitor.open(Path("Refine3D/job002"))
    settled(monitor, qtbot)
    assert mine.visible
    assert shown(viewer) == ["mine", "half 1, iteration 2 [1]", "half 2, iteration 2 [1]"]
    assert len(viewer.layers) == 7


def test_a_folder_in_which_nothing_has_run_is_no_error(monitor):
    assert monitor.state.text() == "Nothing has run in this folder."
    assert not monitor.steering.continue_button.isVisibleTo(monitor)
    assert not monitor.slider.isEnabled()


def test_a_refinement_of_a_terminal_is_watched_stopped_and_continued_with_another_mask(
    project, viewer, qtbot
):
    made = subprocess.run([sys.executable, "-c", SIMULATION], capture_output=True, text=True, check=True)
    particles, reference = map(Path, made.stdout.split())
    options = refine3d.Options(
        particles=particles,
        reference=reference,
        output=NAME,
        symmetry="D2",
        initial_lowpass=25.0,
        mask_diameter=80.0,
        initial_angular_sampling=15.0,
        initial_offset_range=3.0,
        finer_sampling_faster=True,
        threads=1,
    )
    words = [sys.executable, "-m", "cryorefine.cli", *command(refine3d.JOB, options)[1:]]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        panel = Monitor(viewer)
        viewer.window.add_dock_widget(panel, name="Monitor", area="bottom")
        panel.open(NAME)
        until(panel, qtbot, lambda: panel.chosen is not None)
        panel.steering.stop_later()
        assert process.wait(120) != 0
        until(panel, qtbot, lambda: panel.state.text() == "Stopped by request.")
        look(panel, qtbot)
        inside = (np.indices((24, 24, 24)) - 12 < 8).all(axis=0).astype(np.uint8)
        mask = viewer.add_labels(inside, scale=(4.0,) * 3, units="angstrom", name="mine")
        steering = panel.steering
        steering.mask_choice.showPopup()
        steering.mask_choice.hidePopup()
        steering.mask_choice.setCurrentText(f"Mask: {mask.name}")
        panel.choose(1)
        steering._tell_continue()
        branch = "" if len(panel.reading.iterations) == 1 else " as Refine3D/job002"
        assert steering.continue_button.text() == f"Change mask and continue from iteration 1{branch}"
        qtbot.mouseClick(steering.continue_button, Qt.MouseButton.LeftButton)
        folder = project / ("Refine3D/job002" if branch else NAME)
        qtbot.waitUntil(lambda: not steering.starting, timeout=SECONDS)
        assert panel.name.text() == f"Refine3D/{folder.name}"
        until(panel, qtbot, lambda: panel.chosen is not None and panel.chosen.number >= 2)
        settled(panel, qtbot)
        job = folder / ("job.star" if branch else "continue_job.star")
        assert read_job(job).options.reference_mask.name == "layer_mine.mrc"
        assert (folder / "run_solvent_mask.mrc").exists()
        steering.stop()
        until(panel, qtbot, lambda: panel.state.text() in ("Stopped by request.", "Finished."))
    finally:
        process.kill()


def test_times_are_told_as_far_as_they_can_be_known(running, monitor):
    reading = monitor.reading
    one = monitor.reading.iterations[-1]
    fake = SimpleNamespace(
        progress=Progress("Iteration 3", 30, 120),
        iterations=(SimpleNamespace(**{**one.__dict__, "seconds": 60.0}),),
        life=Life("running", ""),
    )
    assert time_text(fake, 200.0) == (
        "Iteration 3 25 %, 3 min left; then at least 4 more iterations of some 60 s, and more as long as "
        "the map improves"
    )
    assert time_text(fake, None).startswith("Iteration 3 25 %; then")
    assert figures_line(reading.iterations[0]).startswith("8 Å  ·  step 15°, 2.5 Å  ·  accuracy 2.5°, 1.2 Å")
