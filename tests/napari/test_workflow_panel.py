"""The workflow panel: its steps are true, a click opens a filled form, and what a person typed stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from cryorefine.io.mrc import write_map
from cryorefine.jobs import finish, mask_create, postprocess
from cryorefine.jobs.alias import give_alias
from cryorefine.jobs.folder import lock
from cryorefine.jobs.pipeline_record import record_alias
from cryorefine.jobs.project import start_pipeline
from napari_cryorefine.forms import JobForm
from napari_cryorefine.job_files import NO_LAYERS, get_star_reader
from napari_cryorefine.job_views import FORMS
from napari_cryorefine.workflow_panel import WorkflowPanel

SECONDS = 60_000
LEFT = Qt.MouseButton.LeftButton
HALF = Path("Refine3D/job001/run_half1_class001_unfil.mrc")
MASK = Path("MaskCreate/job002/mask.mrc")


@pytest.fixture
def plugin(npe2pm):
    """Make the plugin known to napari, as the installed manifest describes it."""
    with npe2pm.tmp_plugin(package="napari-cryorefine"):
        yield


@pytest.fixture
def refined(project: Path, blob: np.ndarray) -> Path:
    """Project with a finished refinement: half maps and their mean."""
    folder = project / "Refine3D/job001"
    folder.mkdir(parents=True)
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()
    (folder / "job.star").write_text("\ndata_job\n\n_rlnJobTypeLabel relion.refine3d\n")
    for half in (1, 2):
        noise = np.random.default_rng(half).normal(0, 0.05, blob.shape)
        path = folder / f"run_half{half}_class001_unfil.mrc"
        write_map(path, (blob + noise).astype(np.float32), 2.5)
    write_map(folder / "run_class001.mrc", blob, 2.5)
    return project


@pytest.fixture
def panel_in(make_napari_viewer, qtbot, plugin, messages):
    """Return a function that opens the panel in a window that is seen."""

    def make() -> tuple[Any, WorkflowPanel]:
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1300, 950)
        _, panel = viewer.window.add_plugin_dock_widget("napari-cryorefine", "Workflow")
        settle(qtbot, panel)
        return viewer, panel

    return make


@pytest.fixture
def panel_alone(model, qtbot):
    """Return a function that opens the panel without a viewer around it."""

    def make() -> WorkflowPanel:
        panel = WorkflowPanel(model)
        qtbot.addWidget(panel)
        with qtbot.waitExposed(panel):
            panel.show()
        settle(qtbot, panel)
        return panel

    return make


def settle(qtbot: Any, panel: WorkflowPanel) -> None:
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)
    QApplication.processEvents()


def refreshed(qtbot: Any, panel: WorkflowPanel) -> None:
    settle(qtbot, panel)
    panel.refresh()
    settle(qtbot, panel)


def form_in(viewer: Any, name: str) -> JobForm:
    found = [form for form in viewer.window.dock_widgets.values() if isinstance(form, JobForm)]
    return next(form for form in found if form.job.name == name)


def told(panel: WorkflowPanel, key: str) -> tuple[str, str]:
    return panel.rows[key].state.status, panel.rows[key].told.text()


def make_mask() -> None:
    finish(
        mask_create.run(
            mask_create.Options(
                input=HALF.with_name("run_class001.mrc"), output=MASK.parent, threshold=0.4, lowpass=0.0
            )
        )
    )


def test_a_person_goes_from_the_sample_to_a_sharpened_map(panel_in, qtbot, refined):
    """One way through, by clicks and keys: sample, mask, sharpening, results, cancel, reopen."""
    viewer, panel = panel_in()
    viewer.open_sample("napari-cryorefine", "beta-galactosidase")
    assert told(panel, "refine3d")[0] == "succeeded"
    assert told(panel, "mask") == ("not run", "next")

    # The first step takes what the sample has brought.
    qtbot.mouseClick(panel.rows["refine3d"].open_button, LEFT)
    settle(qtbot, panel)
    form = form_in(viewer, "refine3d")
    assert form.page["particles"].value.name == "particles.star"
    assert form.page["reference"].value.name == "reference_5a1a.mrc"
    qtbot.waitUntil(form.isVisible)

    # A mask: the form comes filled, with reasons; a number is typed, the job is run by a click.
    panel.come_forward()
    qtbot.mouseClick(panel.rows["mask"].open_button, LEFT)
    settle(qtbot, panel)
    mask_form = form_in(viewer, "mask-create")
    assert mask_form.page["input"].value == HALF.with_name("run_class001.mrc")
    assert mask_form.page.reasons["input"].text().endswith("from Refine3D/job001")
    assert "solvent" in mask_form.page.reasons["threshold"].text()
    line = mask_form.page["threshold"].native.lineEdit()
    line.selectAll()
    qtbot.keyClicks(line, "0.4")
    qtbot.mouseClick(mask_form.run_button, LEFT)
    qtbot.waitUntil(lambda: not mask_form.is_running, timeout=SECONDS)
    assert "mask" in [layer.name for layer in viewer.layers]
    refreshed(qtbot, panel)
    assert panel.rows["mask"].state.job.name == "MaskCreate/job002"
    assert told(panel, "postprocess") == ("not run", "next")

    # Sharpening by the keyboard: Enter on the row, and the mask that was just made is there.
    panel.come_forward()
    panel.rows["postprocess"].setFocus()
    qtbot.keyClick(panel.rows["postprocess"], Qt.Key.Key_Return)
    settle(qtbot, panel)
    form = form_in(viewer, "postprocess")
    assert (form.page["half_map"].value, form.page["mask"].value) == (HALF, MASK)
    assert form.page.reasons["mask"].text().endswith("from MaskCreate/job002")
    qtbot.mouseClick(form.run_button, LEFT)
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    refreshed(qtbot, panel)
    status, text = told(panel, "postprocess")
    assert status == "succeeded"
    assert "Å" in text

    # Results appear again from the row, as layers.
    viewer.layers.clear()
    panel.come_forward()
    qtbot.mouseClick(panel.rows["postprocess"].show_button, LEFT)
    qtbot.waitUntil(lambda: "postprocess_masked" in [layer.name for layer in viewer.layers], timeout=SECONDS)
    settle(qtbot, panel)

    # A job that is cancelled is told so, and its form is filled again.
    qtbot.mouseClick(panel.rows["local"].open_button, LEFT)
    settle(qtbot, panel)
    form = form_in(viewer, "local-resolution")
    form.page.update(sampling=3.0, sphere_radius=12.0, sphere_edge=5.0)
    qtbot.mouseClick(form.run_button, LEFT)
    qtbot.waitUntil(lambda: form.bar.maximum() > 1, timeout=SECONDS)
    qtbot.mouseClick(form.cancel_button, LEFT)
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert form.status.text() == "Stopped."
    refreshed(qtbot, panel)
    assert told(panel, "local") == ("aborted", "stopped")
    assert panel.rows["local"].show_button.text() == "Log"
    panel.come_forward()
    qtbot.mouseClick(panel.rows["local"].open_button, LEFT)
    settle(qtbot, panel)
    assert (form.page["half_map"].value, form.page["sampling"].value) == (HALF, 3.0)

    # A form that is closed and opened again is as it was left, an emptied box included.
    panel.come_forward()
    qtbot.mouseClick(panel.rows["postprocess"].open_button, LEFT)
    settle(qtbot, panel)
    form = form_in(viewer, "postprocess")
    form.page["mask"].line_edit.native.selectAll()
    qtbot.keyClick(form.page["mask"].line_edit.native, Qt.Key.Key_Delete)
    qtbot.keyClick(form.page["mask"].line_edit.native, Qt.Key.Key_Escape)
    qtbot.keyClicks(form.page["bfactor"].native, "-80.5")
    viewer.window.remove_dock_widget(form)
    panel.open_step("postprocess")
    settle(qtbot, panel)
    form = form_in(viewer, "postprocess")
    assert form.page["bfactor"].value == -80.5
    assert form.page["mask"].value is None
    assert "take it" in form.page.reasons["mask"].text()
    form.page.reasons["mask"].take()
    assert form.page["mask"].value == MASK


def test_what_was_filled_is_kept_fresh_and_what_was_typed_is_kept(panel_in, qtbot, refined, blob):
    _, panel = panel_in()
    make_mask()
    refreshed(qtbot, panel)
    form = panel.open_step("postprocess")
    settle(qtbot, panel)
    assert form.page["mask"].value == MASK
    form.page["autob_lowest_resolution"].value = 12.5
    write_map(refined / "mine.mrc", blob.clip(0, 1), 2.5)
    again = MASK.parent.with_name("job003")
    (refined / again).mkdir()
    (refined / again / "RELION_JOB_EXIT_SUCCESS").touch()
    write_map(refined / again / "mask.mrc", blob.clip(0, 1), 2.5)
    refreshed(qtbot, panel)
    panel.open_step("postprocess")
    settle(qtbot, panel)
    assert form.page["mask"].value == again / "mask.mrc"  # it was filled in, not typed
    assert form.page["autob_lowest_resolution"].value == 12.5
    form.page["mask"].value = Path("mine.mrc")
    assert not form.page.reasons["mask"].text()
    panel.open_step("postprocess")
    settle(qtbot, panel)
    assert form.page["mask"].value == Path("mine.mrc")
    # What is worked out follows from what was typed, too.
    mask_form = panel.open_step("mask")
    settle(qtbot, panel)
    first = mask_form.page["threshold"].value
    write_map(refined / "twice.mrc", 2 * blob, 2.5)
    mask_form.page["input"].value = Path("twice.mrc")
    panel.open_step("mask")
    settle(qtbot, panel)
    assert mask_form.page["threshold"].value == pytest.approx(2 * first, rel=0.02)
    # The job that is looked at decides what is offered.
    row = panel.rows["mask"]
    row.jobs.setCurrentIndex(1)
    row.jobs.activated.emit(1)
    settle(qtbot, panel)
    panel.open_step("postprocess")
    settle(qtbot, panel)
    assert "MaskCreate/job002" in form.page.reasons["mask"].text()


def test_forms_that_are_opened_in_haste_get_their_own_values(panel_in, qtbot, refined):
    _, panel = panel_in()
    forms = {key: panel.open_step(key) for key in ("mask", "postprocess", "local")}
    settle(qtbot, panel)
    assert forms["local"].page["half_map"].value == HALF
    assert forms["postprocess"].page["half_map"].value == HALF
    assert "solvent" in forms["mask"].page.reasons["threshold"].text()
    assert forms["mask"].page["input"].value == HALF.with_name("run_class001.mrc")


def test_the_panel_works_in_a_project_of_relion_with_aliases(panel_in, qtbot, refined):
    start_pipeline(refined)
    make_mask()
    give_alias(MASK.parent, "tight")
    record_alias(MASK.parent)
    _, panel = panel_in()
    assert panel.place.text().endswith("(RELION project)")
    assert panel.rows["mask"].jobs.currentText() == "MaskCreate/job002  ·  tight"
    form = panel.open_step("postprocess")
    settle(qtbot, panel)
    assert form.page["output"].value == Path("PostProcess/job003")
    assert form.page.reasons["mask"].text().endswith("from MaskCreate/job002 (tight)")


def test_a_failed_step_says_why_and_shows_its_log(panel_alone, qtbot, refined):
    folder = refined / "PostProcess/job004"
    folder.mkdir(parents=True)
    (folder / "RELION_JOB_EXIT_FAILURE").touch()
    (folder / "run.err").write_text("The half maps differ in size; choose others.\n")
    panel = panel_alone()
    row = panel.rows["postprocess"]
    assert row.told.text() == "failed"
    assert row.below.isVisible()
    assert row.below.text() == "The half maps differ in size; choose others."
    assert row.show_button.text() == "Log"


def test_a_running_step_shows_how_far_it_is(panel_alone, qtbot, refined):
    folder = refined / "Refine3D/job002"
    folder.mkdir()
    (folder / "job.star").write_text("\ndata_job\n\n_rlnJobTypeLabel relion.refine3d\n")
    (folder / "progress.jsonl").write_text(
        '{"event": "Progress", "stage": "Iteration 3", "done": 1, "total": 4}\n'
    )
    held = lock.take(folder)
    try:
        panel = panel_alone()
        row = panel.rows["refine3d"]
        assert row.told.text() == "running, Iteration 3, 25 %"
        assert row.show_button.text() == "Follow"
        assert row.bar.isVisible()
        assert row.bar.value() == 25
        # Until it has ended, the finished one is taken from.
        assert row.state.source.name == "Refine3D/job001"
        settle(qtbot, panel)
    finally:
        held.release()


def test_every_row_is_reached_by_the_keyboard(panel_alone, qtbot, refined):
    panel = panel_alone()
    rows = list(panel.rows.values())
    panel.activateWindow()
    rows[0].setFocus()
    qtbot.waitUntil(rows[0].hasFocus)
    qtbot.keyClick(rows[0], Qt.Key.Key_Down)
    assert rows[1].hasFocus()
    qtbot.keyClick(rows[1], Qt.Key.Key_Up)
    assert rows[0].hasFocus()
    reached = []
    for _ in range(40):
        here = QApplication.focusWidget()
        reached.append(here)
        qtbot.keyClick(here, Qt.Key.Key_Tab)
        if here is rows[-1].open_button:
            break
    places = [reached.index(control) for row in rows for control in row.controls() if control.isVisible()]
    assert places == sorted(places)
    qtbot.keyClick(rows[-1], Qt.Key.Key_3, Qt.KeyboardModifier.AltModifier)
    qtbot.waitUntil(rows[2].hasFocus)
    settle(qtbot, panel)


def test_subtomograms_have_steps_of_their_own(panel_alone, qtbot, project):
    (project / "optimisation_set.star").write_text("\ndata_\n\n_rlnTomoTomogramsFile tomograms.star\n")
    panel = panel_alone()
    assert panel.workflow.name == "subtomograms"  # that is what lies here
    assert list(panel.rows) == ["extract", "reconstruct", "refine3d", "mask", "postprocess", "local"]
    assert panel.rows["extract"].told.text() == "next"
    assert {row.step.job for row in panel.rows.values()} <= set(FORMS)
    qtbot.mouseClick(panel.tabs, LEFT, pos=panel.tabs.tabRect(0).center())
    settle(qtbot, panel)
    assert panel.workflow.name == "single-particles"
    assert {row.step.job for row in panel.rows.values()} <= set(FORMS)
    assert not panel.message.isVisible()


def test_an_empty_folder_is_told_what_to_do(panel_alone, qtbot, project):
    panel = panel_alone()
    assert "File > Open" in panel.message.text()
    (project / "particles.star").write_text("data_particles\n\nloop_\n_rlnDefocusU\n1.0\n")
    refreshed(qtbot, panel)
    assert not panel.message.isVisible()


def test_a_job_file_that_is_opened_opens_its_form(panel_in, qtbot, refined, tmp_path_factory, monkeypatch):
    finish(
        postprocess.run(
            postprocess.Options(half_map=HALF, output=Path("PostProcess/job002"), bfactor=-81.25, lowpass=6.5)
        )
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    viewer, panel = panel_in()
    assert viewer.open(refined / "PostProcess/job002/job.star", plugin="napari-cryorefine") == []
    qtbot.waitUntil(lambda: any(isinstance(w, JobForm) for w in viewer.window.dock_widgets.values()))
    form = form_in(viewer, "postprocess")
    assert form.page["half_map"].value == refined / HALF
    assert (form.page["bfactor"].value, form.page["lowpass"].value) == (-81.25, 6.5)
    assert form.page["output"].value == refined / "PostProcess/job003"
    assert not viewer.layers
    settle(qtbot, panel)


def test_a_pipeline_that_is_opened_opens_its_workflow(
    panel_in, qtbot, refined, tmp_path_factory, monkeypatch
):
    start_pipeline(refined)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    _, panel = panel_in()
    assert told(panel, "refine3d")[0] == "not run"
    reader = get_star_reader(str(refined / "default_pipeline.star"))
    assert reader(str(refined / "default_pipeline.star")) is NO_LAYERS
    qtbot.waitUntil(lambda: told(panel, "refine3d")[0] == "succeeded", timeout=SECONDS)
    settle(qtbot, panel)
