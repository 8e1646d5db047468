"""Forms: every digit comes back, a job can be run and stopped from them, mistakes are told in a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from cryorefine.errors import UserError
from cryorefine.jobs.base import Job, Notice, Progress, describe, option, value_types
from cryorefine.jobs.registry import JOBS, load
from napari_cryorefine.boxes import OptionalNumberBox
from napari_cryorefine.forms import JobForm

SECONDS = 20_000


@pytest.fixture
def form_of(qtbot, project, messages):
    """Return a function that shows the form of a job, by name or made up."""

    def make(job, viewer=None) -> JobForm:
        form = JobForm(load(job) if isinstance(job, str) else job, viewer)
        qtbot.addWidget(form)
        return form

    return make


def made_up_job(run):
    """Return a job module that runs a given generator."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Options:
        amount: float = option(0.143, label="Amount", help="How much.", minimum=0, maximum=10, step=0.001)

    globals()["Options"] = Options
    Options.__module__ = __name__
    job = Job(name="made-up", title="Made up", folder="", relion_label="", summary="Nothing")
    return SimpleNamespace(JOB=job, Options=Options, run=run)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("number", [0.143, 1.08254, 1e-7, 3.3333333333333335, 200.0])
def test_every_number_comes_back_with_all_its_digits(form_of, job, number):
    form = form_of(job)
    module = load(job)
    tried = 0
    for name, (kind, _) in value_types(module.Options).items():
        what = describe(module.Options)[name][1]
        low = float("-inf") if what.minimum is None else what.minimum
        high = float("inf") if what.maximum is None else what.maximum
        if kind is float and not what.choices and low <= number <= high:
            form.page.boxes[name].set(number)
            assert form.page.boxes[name].get() == number
            tried += 1
    assert tried or job == "refine3d"


@pytest.mark.parametrize("job", JOBS)
def test_the_defaults_of_the_form_are_those_of_the_job(form_of, job):
    module = load(job)
    form = form_of(job)
    for name, (field, _) in describe(module.Options).items():
        if field.default is not dataclasses.MISSING and name != "output":
            assert form.page.boxes[name].get() == field.default or (
                field.default == "" and not form.page.boxes[name].get()
            )


@pytest.mark.parametrize("job", JOBS)
def test_a_number_that_may_be_left_out_stays_out(form_of, job):
    form = form_of(job)
    for name, (kind, optional) in value_types(load(job).Options).items():
        if optional and kind in (int, float):
            form.page.boxes[name].set(1.08254 if kind is float else 3)
            form.page.boxes[name].set(None)
            assert form.page.boxes[name].get() is None


@pytest.mark.parametrize("job", JOBS)
def test_every_option_has_its_box_with_help_and_label(form_of, job):
    form = form_of(job)
    labels = {label.text() for label in form.findChildren(QLabel)}
    for name, (_, what) in describe(load(job).Options).items():
        assert form.page.boxes[name].toolTip() == what.help
        assert what.label in labels


def test_numbers_typed_like_a_person_types_them(form_of, qtbot):
    form = form_of("postprocess")
    box = form.page.boxes["bfactor"]
    assert isinstance(box, OptionalNumberBox)
    qtbot.keyClicks(box, "-80.5")
    assert box.get() == -80.5
    spin = form.page.boxes["autob_lowest_resolution"]
    spin.lineEdit().selectAll()
    qtbot.keyClicks(spin.lineEdit(), "1.25e1")
    assert spin.get() == 12.5


def test_an_arrow_makes_no_dust(form_of):
    box = form_of("mask-create").page.boxes["threshold"]
    box.set(0.143)
    box.stepBy(1)
    assert box.get() == 0.144


def test_the_wheel_over_a_box_scrolls_the_form_and_changes_nothing(form_of, qtbot):
    from qtpy.QtCore import QPoint, QPointF
    from qtpy.QtGui import QWheelEvent

    box = form_of("mask-create").page.boxes["lowpass"]
    event = QWheelEvent(
        QPointF(5, 5),
        QPointF(5, 5),
        QPoint(0, 0),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    box.wheelEvent(event)
    assert box.get() == 15.0
    assert not event.isAccepted()


def test_a_text_that_is_no_number_is_told_by_its_label(form_of, messages):
    form = form_of("postprocess")
    form.page.boxes["half_map"].set("a_half1.mrc")
    form.page.boxes["bfactor"].setText("about -80")
    form.run()
    kind, sentence = messages[-1]
    assert kind == "error"
    assert "B-factor" in sentence
    assert "about -80" in sentence


def test_an_empty_box_that_must_be_filled_is_named(form_of, messages):
    form_of("mask-create").run()
    assert messages == [("error", "Mask creation: 'Input 3D map' is empty; fill it in.")]


def test_a_missing_file_is_told_in_a_sentence_by_its_label(form_of, messages):
    form = form_of("mask-create")
    form.page.boxes["input"].set("nowhere.mrc")
    form.run()
    assert len(messages) == 1
    assert "'Input 3D map' nowhere.mrc does not exist" in messages[0][1]
    assert form.status.text() == messages[0][1]
    assert not Path("MaskCreate").exists()


def test_a_mask_is_made_and_shown_as_a_person_would(form_of, viewer, map_file, qtbot):
    from napari_cryorefine.layers import add_map

    add_map(viewer, map_file)
    form = form_of("mask-create", viewer)
    # Take the map from the layer that shows it.
    form.page.boxes["input"].layer_menu.aboutToShow.emit()
    form.page.boxes["input"].layer_menu.actions()[0].trigger()
    assert form.page.boxes["input"].get() == Path("blob.mrc")
    form.page.boxes["threshold"].set(0.3)
    assert form.page.boxes["output"].get() == Path("MaskCreate/job001")
    qtbot.mouseClick(form.run_button, Qt.MouseButton.LeftButton)
    assert form.is_running
    assert not form.run_button.isEnabled()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert Path("MaskCreate/job001/RELION_JOB_EXIT_SUCCESS").exists()
    assert [layer.name for layer in viewer.layers] == ["blob", "mask", "mask outline"]
    assert viewer.layers["mask"].data.max() == 1
    assert form.run_button.isEnabled()
    # The next run goes into the next folder.
    assert form.page.boxes["output"].get() == Path("MaskCreate/job002")


def test_a_map_is_sharpened_and_its_curves_are_drawn(form_of, viewer, half_maps, qtbot):
    form = form_of("postprocess", viewer)
    form.page.fill({"half_map": half_maps[1], "auto_bfactor": False, "bfactor": -50.0})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert "Done" in form.status.text(), form.status.text()
    assert "postprocess" in viewer.layers
    assert "Resolution" in form.figures.text()
    plots = viewer.window.dock_widgets["FSC and Guinier plots"].plots
    assert "unmasked" in plots["FSC"].curves
    assert {"original", "sharpened"} <= set(plots["Guinier"].curves)


def test_a_rescaled_map_appears_with_its_new_pixel_size(form_of, viewer, map_file, qtbot):
    form = form_of("image-handler", viewer)
    form.page.fill({"input": map_file, "output": Path("small.mrc"), "rescale_pixel_size": 5.0})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert "Done" in form.status.text(), form.status.text()
    assert tuple(viewer.layers["small"].scale) == pytest.approx((5.0, 5.0, 5.0))


def test_cancel_stops_at_the_next_event(form_of, qtbot):
    ended = []

    def run(options):
        try:
            for step in range(100_000):
                yield Progress("Counting", step, 100_000)
        finally:
            ended.append(step)

    form = form_of(made_up_job(run))
    form.run()
    qtbot.waitUntil(lambda: form.bar.value() > 0, timeout=SECONDS)
    qtbot.mouseClick(form.cancel_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert form.status.text() == "Stopped."
    assert ended[0] < 99_999


@pytest.mark.parametrize(
    "error", [RuntimeError("the sum is off"), ValueError("the sum is off"), KeyError("x")]
)
def test_a_defect_is_told_without_a_traceback_and_the_form_can_go_on(form_of, messages, qtbot, error):
    def run(options):
        yield Progress("Adding", 1, 2)
        raise error

    form = form_of(made_up_job(run))
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert messages == [("error", f"Made up failed: {error}.")]
    assert form.run_button.isEnabled()


def test_a_mistake_found_by_the_job_is_told_as_it_is(form_of, messages, qtbot):
    def run(options):
        yield Notice("A hint.")
        yield Notice("Probably wrong.", warning=True)
        raise UserError("a.mrc is empty; give another.")

    form = form_of(made_up_job(run))
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert messages == [
        ("info", "A hint."),
        ("warning", "Probably wrong."),
        ("error", "a.mrc is empty; give another."),
    ]


def test_a_defect_in_a_job_folder_names_the_log(form_of, messages, map_file, qtbot, monkeypatch):
    from cryorefine.io import mrc

    def broken(*args, **kwargs):
        raise RuntimeError("no disk")

    monkeypatch.setattr(mrc, "write_map", broken)
    form = form_of("mask-create")
    form.page.fill({"input": map_file, "threshold": 0.3})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert "no disk" in messages[-1][1]
    assert "MaskCreate/job001/run.err" in messages[-1][1]
    assert "no disk" in Path("MaskCreate/job001/run.err").read_text()


def test_a_dropped_file_becomes_its_path(form_of, map_file):
    from qtpy.QtCore import QMimeData, QPointF, QUrl
    from qtpy.QtGui import QDropEvent

    box = form_of("mask-create").page.boxes["input"]
    files = QMimeData()
    files.setUrls([QUrl.fromLocalFile(str(map_file))])
    event = QDropEvent(
        QPointF(1, 1),
        Qt.DropAction.CopyAction,
        files,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    box.line.dropEvent(event)
    assert box.get() == Path("blob.mrc")


def test_going_on_stays_in_its_folder_unless_another_is_named(form_of, project):
    folder = project / "Refine3D" / "job001"
    folder.mkdir(parents=True)
    form = form_of("refine3d")
    form.page.boxes["continue_from"].set(folder)
    assert form.page.options().output is None
    form.page.boxes["output"].set("Refine3D/elsewhere")
    assert form.page.options().output == Path("Refine3D/elsewhere")


def test_a_job_file_of_relion_fills_the_form(form_of, shared):
    files = shared / "data/star_files/16_himena_relion5_job_stars"
    job = next(path for path in sorted(files.rglob("job.star")) if "relion.postprocess" in path.read_text())
    form = form_of("postprocess")
    form.load(job)
    assert form.status.text().startswith("Loaded"), form.status.text()
    assert "half1" in form.page.boxes["half_map"].get().name
    # What was refined goes into a new folder, not into that of the file.
    assert form.page.boxes["output"].get() == Path("PostProcess/job001")


def test_a_job_file_of_another_job_is_refused(form_of, messages, map_file, qtbot):
    form = form_of("mask-create")
    form.page.fill({"input": map_file, "threshold": 0.3})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    form_of("postprocess").load(Path("MaskCreate/job001/job.star"))
    assert messages[-1][0] == "error"
    assert "mask-create" in messages[-1][1]


def test_a_job_can_be_repeated_from_its_own_file(form_of, map_file, qtbot):
    form = form_of("mask-create")
    form.page.fill({"input": map_file, "threshold": 0.31234567, "extend": -1.0})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    again = form_of("mask-create")
    again.load(Path("MaskCreate/job001/job.star"))
    assert again.page.boxes["threshold"].get() == 0.31234567
    assert again.page.boxes["extend"].get() == -1.0
    assert again.page.boxes["output"].get() == Path("MaskCreate/job002")
