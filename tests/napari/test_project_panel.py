"""The dock of a project: what it lists is true, and the next job is one click away."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cryorefine.io.mrc import write_map
from cryorefine.io.pipeline import read_pipeline
from cryorefine.jobs import finish, mask_create
from cryorefine.jobs.folder import lock
from cryorefine.jobs.lineage import job_of
from cryorefine.jobs.project import read_project, start_pipeline
from cryorefine.jobs.registry import JOBS
from napari_cryorefine.forms import JobForm
from napari_cryorefine.job_views import FORMS
from napari_cryorefine.monitor import Monitor
from napari_cryorefine.project_panel import ProjectPanel

SECONDS = 60_000
PIPELINE = "data/hiv_sta_relion5_metadata/pipelines/default_pipeline.star"


@pytest.fixture
def plugin(npe2pm):
    """Make the plugin known to napari, as the installed manifest describes it."""
    with npe2pm.tmp_plugin(package="napari-cryorefine"):
        yield


@pytest.fixture
def refined(project: Path, blob: Any) -> Path:
    """Project of RELION with a map and a mask of it."""
    start_pipeline(project)
    (project / "Refine3D/job001").mkdir(parents=True)
    (project / "Refine3D/job001/RELION_JOB_EXIT_SUCCESS").touch()
    write_map(project / "Refine3D/job001/run_class001.mrc", blob, 2.5)
    finish(mask_create.run(options("MaskCreate/job002")))
    return project


def options(output: str) -> mask_create.Options:
    return mask_create.Options(
        input=Path("Refine3D/job001/run_class001.mrc"), output=Path(output), threshold=0.4, soft_edge=2.0
    )


def opened(panel: ProjectPanel, qtbot: Any) -> ProjectPanel:
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)
    return panel


def rows(panel: ProjectPanel) -> list[list[str]]:
    items = [panel.table.topLevelItem(i) for i in range(panel.table.topLevelItemCount())]
    return [[item.text(i) for i in range(3)] for item in items if not item.isHidden()]


def open_form(viewer: Any) -> JobForm:
    (form,) = [dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, JobForm)]
    return form


def test_every_job_has_its_form():
    assert set(FORMS) == set(JOBS)


def test_the_jobs_of_a_real_project_are_found_by_words(viewer, qtbot, shared, project):
    shutil.copy(shared / PIPELINE, project)
    panel = opened(ProjectPanel(viewer), qtbot)
    assert len(rows(panel)) == 80
    assert rows(panel)[0] == ["ModelAngelo/job080", "", "missing"]
    panel.filter.setText("refine3d cycle")
    assert [row[1] for row in rows(panel)] == ["cycle4", "cycle3", "cycle2", "cycle1", "cycle0"]
    panel.filter.clear()
    assert len(rows(panel)) == 80
    kinds = {job.name: job_of(job) for job in panel.project.jobs}
    assert kinds["Extract/job010"] == "pseudo-subtomo"
    assert kinds["Refine3D/job012"] == "refine3d"
    assert kinds["Polish/job030"] == ""
    assert kinds["CtfRefine/job027"] == ""  # of tilt series


def test_the_results_of_a_job_appear(viewer, qtbot, refined):
    panel = opened(ProjectPanel(viewer), qtbot)
    assert rows(panel) == [["MaskCreate/job002", "", "succeeded"], ["Refine3D/job001", "", "succeeded"]]
    assert not panel.results_button.isEnabled()
    panel.choose("Refine3D/job001")
    panel.results_button.click()
    qtbot.waitUntil(lambda: not panel.busy and len(viewer.layers) == 1, timeout=SECONDS)
    assert viewer.layers[0].name == "run_class001"


def test_a_job_without_results_is_told_in_a_sentence(viewer, qtbot, refined):
    (refined / "Refine3D/job001/run_class001.mrc").unlink()
    panel = opened(ProjectPanel(viewer), qtbot)
    panel.choose("Refine3D/job001")
    panel.show_results()
    qtbot.waitUntil(lambda: "no results" in panel.message.text(), timeout=SECONDS)


def test_the_next_job_has_its_number_and_gets_into_the_pipeline(viewer, qtbot, refined, plugin, messages):
    panel = opened(ProjectPanel(viewer), qtbot)
    panel.choose("MaskCreate/job002")
    panel.options_button.click()
    form = open_form(viewer)
    assert form.page["output"].value == Path("MaskCreate/job003")
    assert form.page["threshold"].value == 0.4
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert read_pipeline(refined / "default_pipeline.star").outputs("MaskCreate/job003")
    panel.refresh()
    qtbot.waitUntil(lambda: rows(panel)[0] == ["MaskCreate/job003", "", "succeeded"], timeout=SECONDS)
    assert panel.chosen.name == "MaskCreate/job002"
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)


def test_a_form_works_in_the_project_that_is_open(
    viewer, qtbot, refined, plugin, messages, tmp_path_factory, monkeypatch
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    panel = opened(ProjectPanel(viewer), qtbot)
    assert panel.message.text() == "No job has run in this folder."
    panel.open(refined / "default_pipeline.star")
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)
    assert len(rows(panel)) == 2
    form = panel.open_form("mask-create")
    assert form.page["output"].value == refined / "MaskCreate/job003"
    form.page["input"].value = refined / "Refine3D/job001/run_class001.mrc"
    form.page["threshold"].value = 0.4
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert form.page["output"].value == refined / "MaskCreate/job004"
    pipeline = read_pipeline(refined / "default_pipeline.star")
    assert pipeline.inputs("MaskCreate/job003") == ["Refine3D/job001/run_class001.mrc"]


def test_a_folder_becomes_a_project_of_relion_only_when_asked(viewer, qtbot, project):
    (project / "Refine3D/job004").mkdir(parents=True)
    (project / "Refine3D/job004/RELION_JOB_EXIT_FAILURE").touch()
    panel = opened(ProjectPanel(viewer), qtbot)
    assert rows(panel) == [["Refine3D/job004", "", "failed"]]
    assert not (project / "default_pipeline.star").exists()
    assert not panel.start_button.isHidden()
    panel.start_button.click()
    qtbot.waitUntil(lambda: panel.start_button.isHidden(), timeout=SECONDS)
    assert read_pipeline(project / "default_pipeline.star").job_counter == 5
    qtbot.waitUntil(lambda: not panel.busy, timeout=SECONDS)


def test_a_running_refinement_is_followed_in_the_monitor(viewer, qtbot, refined, plugin, messages):
    folder = refined / "Refine3D/job003"
    folder.mkdir()
    (folder / "job.star").write_text("\ndata_job\n\n_rlnJobTypeLabel relion.refine3d\n")
    held = lock.take(folder)
    try:
        panel = opened(ProjectPanel(viewer), qtbot)
        assert rows(panel)[0] == ["Refine3D/job003", "", "running"]
        panel.choose("Refine3D/job003")
        panel.show_results()
        (monitor,) = [dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, Monitor)]
        qtbot.waitUntil(lambda: monitor.name.text() == "Refine3D/job003", timeout=SECONDS)
    finally:
        held.release()
    viewer.window.remove_dock_widget(monitor)
    monitor.deleteLater()


def test_the_list_is_read_beside_the_window(viewer, qtbot, project, monkeypatch):
    from napari_cryorefine import project_panel

    def slow(folder):
        time.sleep(0.5)
        return read_project(folder)

    monkeypatch.setattr(project_panel, "read_project", slow)
    panel = ProjectPanel(viewer)
    qtbot.addWidget(panel)
    assert panel.project is None  # the panel is there before the list is
    qtbot.waitUntil(lambda: panel.project is not None and not panel.busy, timeout=SECONDS)
