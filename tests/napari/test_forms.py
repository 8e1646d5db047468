"""Forms: every digit comes back, a job can be run and stopped from them, mistakes are told in a sentence."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from magicgui.widgets import Container
from qtpy.QtCore import QEvent, QMimeData, QObject, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel

from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map
from cryorefine.jobs.base import Job, Notice, Progress, describe, option, value_types
from cryorefine.jobs.command import add_options, options_from
from cryorefine.jobs.registry import JOBS, load
from napari_cryorefine.boxes import OptionalNumberEdit
from napari_cryorefine.forms import JobForm
from napari_cryorefine.path_box import PathEdit
from napari_cryorefine.sections import SectionHeading

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
            form.page[name].value = number
            assert form.page[name].value == number
            tried += 1
    if not tried:
        pytest.skip(f"no option of {job} may be {number}")


@pytest.mark.parametrize("job", JOBS)
def test_the_defaults_of_the_form_are_those_of_the_job(form_of, job):
    module = load(job)
    form = form_of(job)
    for name, (field, _) in describe(module.Options).items():
        if field.default is not dataclasses.MISSING and name != "output":
            assert form.page[name].value == field.default or (
                field.default == "" and not form.page[name].value
            )


@pytest.mark.parametrize("job", JOBS)
def test_a_number_that_may_be_left_out_stays_out(form_of, job):
    form = form_of(job)
    for name, (kind, optional) in value_types(load(job).Options).items():
        if optional and kind in (int, float):
            form.page[name].value = 1.08254 if kind is float else 3
            form.page[name].value = None
            assert form.page[name].value is None


@pytest.mark.parametrize("job", JOBS)
def test_every_option_has_its_box_with_help_and_label(form_of, job):
    form = form_of(job)
    labels = {label.text() for label in form.findChildren(QLabel)}
    for name, (_, what) in describe(load(job).Options).items():
        assert form.page[name].tooltip == what.help
        assert what.label in labels


def test_nothing_flashes_up_as_a_window_of_its_own_while_a_form_is_made(form_of):
    flashed = []

    class Watch(QObject):
        def eventFilter(self, watched, event):
            if event.type() == QEvent.Type.Show and watched.isWidgetType() and watched.isWindow():
                flashed.append(watched)
            return False

    watch = Watch()
    QApplication.instance().installEventFilter(watch)
    for job in ("refine3d", "mask-create"):
        form_of(job)
    QApplication.instance().removeEventFilter(watch)
    assert not flashed


def test_all_processor_cores_are_called_so(form_of, qtbot):
    form = form_of("refine3d")
    box = form.page["threads"]
    assert box.native.text() == "all"
    for typed, value, shown in (("4", 4, "4"), ("0", 0, "all"), ("7", 7, "7"), ("All", 0, "all")):
        box.native.selectAll()
        qtbot.keyClicks(box.native, typed)
        qtbot.keyClick(box.native, Qt.Key.Key_Return)
        assert (box.value, box.native.text()) == (value, shown)
    box.native.stepBy(1)
    assert box.value == 1
    form.page["random_seed"].value = 0
    assert form.page["random_seed"].native.text() == "0"  # stands for nothing else


def test_particles_come_first_and_subtomograms_apart(form_of):
    form = form_of("refine3d")
    form.grab()  # lays it out
    names = ("particles", "reference", "output", "optimisation_set", "tomograms", "trajectories", "symmetry")
    places = [form.page[name].native.y() for name in names]
    assert places == sorted(places)


def test_numbers_typed_like_a_person_types_them(form_of, qtbot):
    form = form_of("postprocess")
    box = form.page["bfactor"]
    assert isinstance(box, OptionalNumberEdit)
    qtbot.keyClicks(box.native, "-80.5")
    assert box.value == -80.5
    spin = form.page["autob_lowest_resolution"]
    spin.native.lineEdit().selectAll()
    qtbot.keyClicks(spin.native.lineEdit(), "1.25e1")
    assert spin.value == 12.5


def test_an_arrow_makes_no_dust(form_of):
    box = form_of("mask-create").page["threshold"]
    box.value = 0.171
    assert 0.171 + 0.001 != 0.172
    box.native.stepBy(1)
    assert box.value == 0.172


@pytest.mark.parametrize("option", ["initial_lowpass", "padding", "local_search_from"])
def test_the_wheel_over_a_box_scrolls_the_form_and_changes_nothing(form_of, qtbot, option):
    form = form_of("refine3d")
    form.resize(450, 1000)
    with qtbot.waitExposed(form):
        form.show()
    form.activateWindow()
    qtbot.waitUntil(form.isActiveWindow)
    form.page["symmetry"].native.setFocus()
    bar = form.page.root_native_widget.verticalScrollBar()
    box = form.page[option]
    form.page.root_native_widget.ensureWidgetVisible(box.native)
    start = min(bar.value(), bar.maximum() - 1)
    bar.setValue(start)
    before = box.value
    turn_wheel_over(form, box)
    assert box.value == before
    assert bar.value() > start
    # Once it has been clicked, the wheel is its own.
    bar.setValue(start)
    box.native.setFocus()
    turn_wheel_over(form, box)
    assert box.value != before
    assert bar.value() == start


def turn_wheel_over(form, box) -> None:
    """Turn the wheel by a notch towards the person, the pointer over a box."""
    place = box.native.mapTo(form, box.native.rect().center())
    QTest.wheelEvent(form.windowHandle(), QPointF(place), QPoint(0, -120))


@pytest.mark.parametrize("job", JOBS)
def test_tab_reaches_every_box_from_top_to_bottom(form_of, qtbot, job):
    form = form_of(job)
    form.resize(450, 4000)  # all of it, so that nothing scrolls
    with qtbot.waitExposed(form):
        form.show()
    for heading in form.findChildren(SectionHeading):
        heading.setChecked(True)
    QApplication.processEvents()
    form.activateWindow()
    qtbot.waitUntil(form.isActiveWindow)
    first = form.page[0]
    getattr(first, "line_edit", first).native.setFocus()
    places, reached = [], set()
    while (here := QApplication.focusWidget()) is not form.run_button:
        place = here.mapTo(form, QPoint(0, 0))
        places.append((place.y() + here.height() // 2, place.x()))
        reached |= {box.name for box in form.page if box.native is here or box.native.isAncestorOf(here)}
        qtbot.keyClick(here, Qt.Key.Key_Tab)
    assert reached == set(describe(load(job).Options))
    assert places == sorted(places)


def test_sentences_name_options_and_units_as_the_form_does(form_of):
    sentence = form_of("postprocess").page.by_labels("--mask ends at 7.1 A, with pixels of 3.54 A/px.")
    assert sentence == "'Solvent mask' ends at 7.1 Å, with pixels of 3.54 Å/px."


def test_a_number_that_is_set_leaves_the_focus_alone_and_is_never_blank(form_of, qtbot):
    form = form_of("refine3d")
    with qtbot.waitExposed(form):
        form.show()
    form.activateWindow()
    qtbot.waitUntil(form.isActiveWindow)
    text = form.page["symmetry"].native
    text.setFocus()
    seed = form.page["random_seed"]
    seed.value = 12
    assert QApplication.focusWidget() is text
    seed.native.setFocus()
    seed.native.lineEdit().clear()
    text.setFocus()
    assert seed.native.text() == "12"
    assert seed.value == 12
    assert isinstance(seed.value, int)


def test_the_page_is_scripted_like_any_container_of_magicgui(form_of):
    page = form_of("refine3d").page
    assert isinstance(page, Container)
    assert list(page.asdict()) == list(describe(load("refine3d").Options))
    pages, values = [], []
    page.changed.connect(pages.append)
    page.mask_diameter.changed.connect(values.append)
    page.mask_diameter.value = 180.125
    page["symmetry"].value = "D2"
    page["local_search_from"].value = 3.7
    page["reference"].value = "ref.mrc"
    assert pages == [page] * 4
    assert values == [180.125]
    del pages[:]
    page.update(symmetry="O", threads=3, zero_mask=False)
    assert pages == [page]
    there = page.asdict()
    assert there["symmetry"] == "O"
    assert there["threads"] == 3
    assert there["zero_mask"] is False
    assert there["local_search_from"] == 3.7
    assert there["reference"] == Path("ref.mrc")
    assert there["reference_mask"] is None
    assert "mask_diameter: float = 180.125" in repr(page)
    with pytest.raises(ValueError, match="outside of the allowed range"):
        page["mask_diameter"].value = -1
    with pytest.raises(ValueError, match="not a valid choice"):
        page["local_search_from"].value = 4.0


def test_half_a_number_is_not_yet_a_change(form_of, qtbot):
    box = form_of("postprocess").page["bfactor"]
    values = []
    box.changed.connect(values.append)
    qtbot.keyClicks(box.native, "-8")
    box.native.clear()
    assert values == [-8.0, None]


def test_label_and_unit_follow_their_box(form_of):
    form = form_of("mask-create")
    box = form.page["lowpass"]
    box.label, box.tooltip = "Filter", "Another help."
    label = next(label for label in form.findChildren(QLabel) if label.text() == "Filter")
    assert label.toolTip() == "Another help."
    others = [other for other in form.findChildren(QLabel) if other.text() == "Å"]
    assert not any(other.isHidden() for other in [label, *others])
    box.visible = False
    assert label.isHidden()
    assert [other.isHidden() for other in others].count(True) == 1
    box.visible = True
    assert not any(other.isHidden() for other in [label, *others])


def test_a_text_that_is_no_number_is_told_by_its_label(form_of, messages):
    form = form_of("postprocess")
    form.page["half_map"].value = "a_half1.mrc"
    form.page["bfactor"].native.setText("about -80")
    form.run()
    kind, sentence = messages[-1]
    assert kind == "error"
    assert "B-factor" in sentence
    assert "about -80" in sentence


def test_an_empty_box_that_must_be_filled_is_named(form_of, messages):
    form_of("postprocess").run()
    expected = "Post-processing: 'One of the 2 unfiltered half-maps' is empty; fill it in."
    assert messages == [("error", expected)]


def test_a_missing_file_is_told_in_a_sentence_by_its_label(form_of, messages):
    form = form_of("mask-create")
    form.page["input"].value = "nowhere.mrc"
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
    form.page["input"].layer_menu.aboutToShow.emit()
    form.page["input"].layer_menu.actions()[0].trigger()
    assert form.page["input"].value == Path("blob.mrc")
    form.page["threshold"].value = 0.3
    assert form.page["output"].value == Path("MaskCreate/job001")
    qtbot.mouseClick(form.run_button, Qt.MouseButton.LeftButton)
    assert form.is_running
    assert not form.run_button.isEnabled()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert Path("MaskCreate/job001/RELION_JOB_EXIT_SUCCESS").exists()
    assert [layer.name for layer in viewer.layers] == ["blob", "mask", "mask outline"]
    assert viewer.layers["mask"].data.max() == 1
    assert form.run_button.isEnabled()
    # The next run goes into the next folder.
    assert form.page["output"].value == Path("MaskCreate/job002")


@pytest.fixture
def painted(viewer):
    """Labels painted by hand, without a file: two parts of a mask in voxels of 2.5 A."""
    data = np.zeros((24, 24, 24), np.uint8)
    data[6:18, 6:18, 6:12], data[6:18, 6:18, 12:18] = 1, 2
    return viewer.add_labels(data, name="my mask", scale=(2.5,) * 3, units="angstrom")


def take_layer(box, name: str) -> None:
    """Choose a layer in the menu of a box."""
    box.layer_menu.aboutToShow.emit()
    next(action for action in box.layer_menu.actions() if action.text() == name).trigger()


def test_a_mask_painted_by_hand_is_saved_with_the_job(form_of, viewer, half_maps, painted, qtbot):
    form = form_of("postprocess", viewer)
    take_layer(form.page["mask"], "my mask")
    assert not Path("PostProcess").exists()
    form.page.update(half_map=half_maps[1], output="PostProcess/elsewhere", auto_bfactor=False, bfactor=-50.0)
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert "Done" in form.status.text(), form.status.text()
    saved = read_map(Path("PostProcess/elsewhere/layer_my_mask.mrc"))
    assert saved.pixel_size == pytest.approx(2.5)
    np.testing.assert_array_equal(saved.data, painted.data > 0)
    assert "layer_my_mask.mrc" in Path("PostProcess/elsewhere/job.star").read_text()
    # The next run takes what has been painted meanwhile, and leaves the file of the first one as it is.
    painted.data = np.roll(painted.data, 2, axis=0)
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    again = read_map(Path("PostProcess/job001/layer_my_mask.mrc"))
    np.testing.assert_array_equal(again.data, painted.data > 0)
    first = read_map(Path("PostProcess/elsewhere/layer_my_mask.mrc"))
    np.testing.assert_array_equal(first.data, saved.data)


def test_a_job_that_does_not_start_saves_no_layer(form_of, viewer, painted, messages):
    form = form_of("postprocess", viewer)
    take_layer(form.page["mask"], "my mask")
    form.page.update(half_map="nowhere_half1.mrc")
    form.run()
    assert "nowhere_half1.mrc does not exist" in messages[-1][1]
    assert not Path("PostProcess").exists()


def test_a_layer_is_not_saved_into_a_finished_job(form_of, viewer, painted, messages, project):
    folder = project / "PostProcess" / "job001"
    folder.mkdir(parents=True)
    (folder / "RELION_JOB_EXIT_SUCCESS").touch()
    form = form_of("postprocess", viewer)
    take_layer(form.page["mask"], "my mask")
    form.page["output"].value = "PostProcess/job001"
    form.run()
    assert "already holds a finished job" in messages[-1][1]
    assert [path.name for path in folder.iterdir()] == ["RELION_JOB_EXIT_SUCCESS"]


def test_layers_of_similar_names_are_saved_apart(form_of, viewer, painted, blob):
    other = viewer.add_image(blob, name="my/mask", scale=(2.5,) * 3, units="angstrom")
    files = form_of("mask-create", viewer)._layer_files()
    assert set(files) == {"my mask", "my/mask"}
    assert len(set(files.values())) == 2
    viewer.layers.remove(other)


def test_a_map_is_sharpened_and_its_curves_are_drawn(form_of, viewer, half_maps, qtbot):
    form = form_of("postprocess", viewer)
    form.page.update({"half_map": half_maps[1], "auto_bfactor": False, "bfactor": -50.0})
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
    form.page.update({"input": map_file, "output": Path("small.mrc"), "rescale_pixel_size": 5.0})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert "Done" in form.status.text(), form.status.text()
    assert tuple(viewer.layers["small"].scale) == pytest.approx((5.0, 5.0, 5.0))


def test_cancel_stops_at_the_next_event(form_of, qtbot):
    ended = []

    def run(options):
        try:
            for step in range(10_000):
                time.sleep(0.002)  # slow enough for a hand on the button
                yield Progress("Counting", step, 10_000)
        finally:
            ended.append(step)

    form = form_of(made_up_job(run))
    form.run()
    qtbot.waitUntil(lambda: form.bar.value() > 0, timeout=SECONDS)
    qtbot.mouseClick(form.cancel_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert form.status.text() == "Stopped."
    assert ended[0] < 9_999


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


def test_a_defect_in_a_job_folder_has_its_log_at_hand(form_of, messages, map_file, qtbot, monkeypatch):
    from cryorefine.io import mrc

    def broken(*args, **kwargs):
        raise RuntimeError("no disk")

    monkeypatch.setattr(mrc, "write_map", broken)
    form = form_of("mask-create")
    form.page.update({"input": map_file, "threshold": 0.3})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert messages[-1] == ("error", "Mask creation failed: no disk.")
    assert "no disk" in Path("MaskCreate/job001/run.err").read_text()
    form.more_button.menu().aboutToShow.emit()
    assert form.more_button.log.isEnabled()
    window = form.show_log()
    qtbot.addWidget(window)
    assert "RuntimeError: no disk" in window.text.toPlainText()
    assert window.text.isReadOnly()


def test_the_notification_of_a_failure_opens_the_log(qtbot):
    from napari.utils.notifications import notification_manager

    from napari_cryorefine.job_log import show_error_with_log

    shown, opened = [], []
    notification_manager.notification_ready.connect(shown.append)
    show_error_with_log("It failed.", lambda: opened.append(True))
    notification_manager.notification_ready.disconnect(shown.append)
    (notification,) = shown
    assert (notification.message, str(notification.severity)) == ("It failed.", "error")
    ((name, action),) = notification.actions
    action(None)
    assert (name, opened) == ("Show log", [True])


def test_a_form_is_found_as_it_was_left_in_its_project(form_of, map_file, tmp_path, monkeypatch):
    form = form_of("mask-create")
    form.page.update(input=map_file, threshold=1 / 3, mass=465.0, fill_holes=True, lowpass=1e-7)
    form.page["mass"].value = None
    form.page["smallest_island"].native.lineEdit().setText("12e")  # half a number
    form.close_down()
    again = form_of("mask-create")
    values = again.page.asdict()
    assert values["input"] == map_file
    assert (values["threshold"], values["lowpass"], values["mass"]) == (1 / 3, 1e-7, None)
    assert values["fill_holes"]
    assert values["output"] == Path("MaskCreate/job001")
    assert "Restore defaults" in again.status.text()
    # Other projects have values of their own.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = form_of("mask-create")
    assert other.page["input"].value is None
    assert other.page["threshold"].value == 0.02
    assert not other.status.text()


def other_value(kind: type, what, default):
    """Return a value of an option that is not its default, with all the digits that a float has."""
    if kind is bool:
        return not default
    if what.choices:
        return next(kind(choice) for choice in what.choices if kind(choice) != default)
    if kind in (int, float):
        low = what.minimum if what.minimum is not None else -1
        value = (default if isinstance(default, int | float) else low) + (2 if kind is int else 1 / 7)
        return value if what.maximum is None or value <= what.maximum else kind(low)
    return Path("folder of mine/file.mrc") if kind is Path else "C4"


@pytest.mark.parametrize("job", JOBS)
def test_every_value_survives_closing_and_is_copied_whole(form_of, job, qtbot, messages, monkeypatch):
    module = load(job)
    types, described = value_types(module.Options), describe(module.Options)
    others = {name: other_value(types[name][0], what, f.default) for name, (f, what) in described.items()}
    if "output" in others and "continue_from" in others:
        others["continue_from"] = None
    form = form_of(job)
    assert form.alias.isHidden() == (not module.JOB.folder)
    form.page.update(others)
    assert form.page.asdict() == others
    # As a command and as Python; the files need not be there.
    monkeypatch.setattr("napari_cryorefine.page.checked", lambda options: options)
    options = module.Options(**others)
    form.more_button.copy_command.trigger()
    words = shlex.split(QGuiApplication.clipboard().text())
    parser = argparse.ArgumentParser()
    add_options(parser, module.Options)
    assert words[:2] == ["cryorefine", job]
    assert options_from(parser.parse_args(words[2:]), module.Options) == options
    form.more_button.copy_python.trigger()
    ran = []

    def run(given):
        ran.append(given)
        yield from ()

    monkeypatch.setattr(module, "run", run)
    exec(QGuiApplication.clipboard().text(), {})
    assert ran == [options]
    # Closed and opened again; each run has a folder of its own.
    empty = {name: None for name, (_, optional) in types.items() if optional}
    for values in (others, others | empty):
        form.page.update(values)
        form.close_down()
        form = form_of(job)
        for name in set(others) - {"output", "continue_from"}:
            assert form.page[name].value == values[name], name


@pytest.mark.parametrize("job", JOBS)
def test_every_map_and_table_may_be_taken_from_a_layer(form_of, job):
    for box in form_of(job).page:
        if isinstance(box, PathEdit) and box.name not in ("output", "continue_from"):
            assert hasattr(box, "layer_menu"), box.name


def test_settings_that_are_damaged_or_of_another_version_are_left_out(form_of, settings):
    settings.mkdir(parents=True)
    file = settings / "mask-create.json"
    file.write_text("{")
    assert form_of("mask-create").page["threshold"].value == 0.02
    values = {"threshold": "much", "no_such_option": 3, "extend": 7.5}
    file.write_text(json.dumps({str(Path.cwd()): values}))
    page = form_of("mask-create").page
    assert (page["threshold"].value, page["extend"].value) == (0.02, 7.5)


def test_defaults_are_restored(form_of, map_file):
    form = form_of("mask-create")
    untouched = form.page.asdict()
    form.page.update(input=map_file, threshold=0.5, mass=465.0, fill_holes=True, combination="or")
    form.more_button.restore.trigger()
    assert form.page.asdict() == untouched


def test_a_filled_form_is_copied_as_a_command_and_as_python(form_of, map_file, qtbot, messages):
    form = form_of("mask-create")
    form.more_button.copy_command.trigger()
    assert messages[-1][0] == "error"
    form.page.update(input=map_file, threshold=0.143)
    form.more_button.copy_command.trigger()
    clipboard = QGuiApplication.clipboard()
    words = shlex.split(clipboard.text())
    assert words[:2] == ["cryorefine", "mask-create"]
    assert words[words.index("--threshold") + 1] == "0.143"
    form.more_button.copy_python.trigger()
    names = {}
    exec(clipboard.text(), names)  # as somebody would paste it: the job runs
    assert names["options"] == form.page.job_options(output=names["options"].output)
    assert names["result"].mask.is_file()


def test_a_job_has_the_alias_that_it_was_given(form_of, map_file, qtbot, messages):
    form = form_of("mask-create")
    form.page.update(input=map_file, threshold=0.3)
    form.alias.setText("job 1")
    form.run()
    assert messages[-1][0] == "error"
    assert "alias" in messages[-1][1]
    form.alias.setText("tight mask")
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert Path("MaskCreate/tight_mask/mask.mrc").is_file()
    assert Path("MaskCreate/tight_mask").resolve() == Path("MaskCreate/job001").resolve()
    assert form.alias.text() == ""


def test_a_job_that_fails_leaves_its_alias_to_the_next_attempt(form_of, map_file, qtbot, monkeypatch):
    from cryorefine.io import mrc

    form = form_of("mask-create")
    form.page.update(input=map_file, threshold=0.3)
    form.alias.setText("mine")
    with monkeypatch.context() as patch:
        patch.setattr(mrc, "write_map", lambda *_, **__: 1 / 0)
        form.run()
        qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert form.alias.text() == "mine"
    form.page["output"].value = Path("MaskCreate/job002")
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert Path("MaskCreate/mine").resolve() == Path("MaskCreate/job002").resolve()


def test_forms_stand_as_tabs_beside_each_other(viewer, qtbot):
    docks = []
    for job in ("mask-create", "postprocess", "refine3d"):
        docks.append(viewer.window.add_dock_widget(JobForm(load(job), viewer), name=job, area="right"))
    window = docks[0].parent()
    qtbot.waitUntil(lambda: len(window.tabifiedDockWidgets(docks[0])) == 2, timeout=SECONDS)
    viewer.window.remove_dock_widget("all")


def test_the_whole_form_is_reached_by_the_keyboard(form_of, qtbot):
    form = form_of("mask-create")
    with qtbot.waitExposed(form):
        form.show()
    reached, widget = [], form.page["input"].line_edit.native
    widget.setFocus()
    for _ in range(200):
        reached.append(form.focusWidget())
        form.focusNextChild()
        if form.focusWidget() is widget:
            break
    order = [box.line_edit.native if isinstance(box, PathEdit) else box.native for box in form.page]
    order += [form.alias, form.run_button, form.load_button, form.more_button]
    places = [reached.index(one) for one in order]
    assert places == sorted(places)


def test_ctrl_return_runs_the_form(form_of, map_file, qtbot):
    form = form_of("mask-create")
    form.page.update(input=map_file, threshold=0.3)
    with qtbot.waitExposed(form):
        form.show()
    form.activateWindow()
    qtbot.waitUntil(form.isActiveWindow)
    form.page["threshold"].native.setFocus()
    qtbot.keyClick(form.page["threshold"].native, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert form.is_running
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    assert Path("MaskCreate/job001/mask.mrc").is_file()


def test_a_dropped_file_becomes_its_path(form_of, map_file):
    box = form_of("mask-create").page["input"]
    files = QMimeData()
    files.setUrls([QUrl.fromLocalFile(str(map_file))])
    for kind in (QDragEnterEvent, QDropEvent):
        place = QPoint(1, 1) if kind is QDragEnterEvent else QPointF(1, 1)
        event = kind(
            place,
            Qt.DropAction.CopyAction,
            files,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(box.line_edit.native, event)
    assert box.value == Path("blob.mrc")


def test_going_on_stays_in_its_folder_unless_another_is_named(form_of, project):
    folder = project / "Refine3D" / "job001"
    folder.mkdir(parents=True)
    form = form_of("refine3d")
    form.page["continue_from"].value = folder
    assert form.page.job_options().output is None
    form.page["output"].value = "Refine3D/elsewhere"
    assert form.page.job_options().output == Path("Refine3D/elsewhere")


def test_a_job_file_of_relion_fills_the_form(form_of, shared):
    files = shared / "data/star_files/16_himena_relion5_job_stars"
    job = next(path for path in sorted(files.rglob("job.star")) if "relion.postprocess" in path.read_text())
    form = form_of("postprocess")
    form.load(job)
    assert form.status.text().startswith("Loaded"), form.status.text()
    assert "half1" in form.page["half_map"].value.name
    # What was refined goes into a new folder, not into that of the file.
    assert form.page["output"].value == Path("PostProcess/job001")


def test_a_job_file_of_another_job_is_refused(form_of, messages, map_file, qtbot):
    form = form_of("mask-create")
    form.page.update({"input": map_file, "threshold": 0.3})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    form_of("postprocess").load(Path("MaskCreate/job001/job.star"))
    assert messages[-1][0] == "error"
    assert "mask-create" in messages[-1][1]


def test_a_job_can_be_repeated_from_its_own_file(form_of, map_file, qtbot):
    form = form_of("mask-create")
    form.page.update({"input": map_file, "threshold": 0.31234567, "extend": -1.0})
    form.run()
    qtbot.waitUntil(lambda: not form.is_running, timeout=SECONDS)
    again = form_of("mask-create")
    again.load(Path("MaskCreate/job001/job.star"))
    assert again.page["threshold"].value == 0.31234567
    assert again.page["extend"].value == -1.0
    assert again.page["output"].value == Path("MaskCreate/job002")


def test_a_long_form_begins_closed_and_opens_where_something_is_set(form_of, qtbot):
    form = form_of("image-handler")
    with qtbot.waitExposed(form):
        form.show()
    headings = {heading.text(): heading for heading in form.findChildren(SectionHeading)}
    assert len(headings) == len({d.group for _, d in describe(load("image-handler").Options).values()}) - 1
    boxes = form.page
    assert boxes["input"].visible
    assert not boxes["rescale_pixel_size"].visible
    assert not boxes["multiply_constant"].visible
    labels = {label.text(): label for label in form.findChildren(QLabel)}
    assert labels[boxes["input"].label].isVisible()
    assert not labels[boxes["new_box"].label].isVisible()
    boxes["rescale_pixel_size"].value = 3.54
    assert labels[boxes["new_box"].label].isVisible()
    assert boxes["new_box"].visible
    assert not boxes["multiply_constant"].visible
    qtbot.mouseClick(headings["Geometry"], Qt.MouseButton.LeftButton)
    assert not boxes["new_box"].visible
    headings["Geometry"].setFocus()
    qtbot.keyClick(headings["Geometry"], Qt.Key.Key_Space)
    assert boxes["new_box"].visible
    assert boxes["new_box"].native.nextInFocusChain() is not None
    assert form.page.asdict()["rescale_pixel_size"] == 3.54
