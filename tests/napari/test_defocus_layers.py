"""Particles on their micrographs: values, colours and selection are the same wherever they are shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.jobs.ctf_refine_project import BOX, COUNT, PIXEL, SHIFT, invented, tables, write_project

from cryorefine.io.mrc import write_map
from cryorefine.io.particles import read_particles
from cryorefine.io.star import write_star
from cryorefine.jobs import ctf_refine, finish
from cryorefine.jobs.base import Figures, Product
from napari_cryorefine import open_results
from napari_cryorefine._compat import is_true_hand
from napari_cryorefine.aberration_panel import DOCK as ABERRATIONS
from napari_cryorefine.ctf_refine_layers import optics_texts
from napari_cryorefine.defocus_layers import MicrographView, micrograph_image
from napari_cryorefine.defocus_panel import DOCK, SHOWN
from napari_cryorefine.particle_fits import CHANGE, DEFOCUS, read_fits
from napari_cryorefine.results import show_event

FOLDER = Path("CtfRefine/job024")


@pytest.fixture(autouse=True)
def _known_outcome(monkeypatch):
    """Fits have a known outcome."""
    from cryorefine.jobs import ctf_refine_session

    monkeypatch.setattr(ctf_refine_session, "refine_ctf", invented)


@pytest.fixture
def ctf_project(project):
    """A project for CtfRefine in the current folder."""
    write_project(project)
    return project


def job(**changes):
    return ctf_refine.Options(
        **{
            "particles": Path("particles.star"),
            "postprocess": Path("postprocess.star"),
            "output": FOLDER,
            "fit_defocus": "per-particle",
            "threads": 1,
        }
        | changes
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project with a finished job."""
    from cryorefine.jobs import ctf_refine_session

    folder = tmp_path_factory.mktemp("finished")
    write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(ctf_refine_session, "refine_ctf", invented)
        finish(ctf_refine.run(job(fit_beamtilt=True, fit_anisotropic_magnification=True)))
    return folder


@pytest.fixture
def done(project, finished):
    """Folder of that job, in a copy of its own of the project."""
    shutil.copytree(finished, project, dirs_exist_ok=True)
    return FOLDER


@pytest.fixture
def view(model, done):
    """The first micrograph of that job in a viewer without Qt."""
    return MicrographView(model, read_fits(done / "particles_ctf_refine.star"), "CtfRefine/job024")


def test_particles_lie_at_their_places_in_angstrom(view):
    expected = tables()["particles"][:20]
    np.testing.assert_allclose(view.points.data[:, 0], expected["rlnCoordinateY"] * PIXEL / 2)
    np.testing.assert_allclose(view.points.data[:, 1], expected["rlnCoordinateX"] * PIXEL / 2)
    for layer in (view.points, view.field):
        assert [str(unit) for unit in layer.units] == ["angstrom"] * 2
        assert layer.axis_labels == ("y", "x")
    assert is_true_hand(view.viewer)


def test_an_empty_field_holds_every_particle(view):
    low = view.field.translate - view.field.scale / 2
    np.testing.assert_allclose(low, 0, atol=1e-6)
    assert (view.fits.places < low + np.array(view.field.data.shape) * view.field.scale).all()
    assert view.field.name.endswith("(not here)")


def test_a_micrograph_lies_under_its_particles(view, project):
    """A bright spot where the first particle is, in a micrograph that is shown averaged."""
    folder = project / "MotionCorr/job002/Movies"
    folder.mkdir(parents=True)
    image = np.zeros((4000, 3200), np.float32)
    image[1000:1012, 2000:2012] = 1
    write_map(folder / "mic1.mrc", image, 0.77)
    view.show(1)
    data, scale = view.field.data, view.field.scale[0]
    assert max(data.shape) <= 1500
    bright = np.argwhere(data > 0.5 * data.max()).mean(axis=0) * scale + view.field.translate
    # coordinates are counted in pixels of PIXEL / 2
    np.testing.assert_allclose(bright, np.array([1005.5, 2005.5]) * PIXEL / 2, atol=PIXEL / 2)
    assert view.field.name == "mic1"


def test_odd_sizes_of_micrographs_are_averaged(tmp_path, rng):
    image = rng.normal(size=(3011, 1507)).astype(np.float32)
    write_map(tmp_path / "mic.mrc", image, 1.0)
    data, step = micrograph_image(tmp_path / "mic.mrc")
    assert step == 3
    assert data[4, 7] == pytest.approx(image[12:15, 21:24].mean(), rel=1e-5)


def test_low_defocus_is_blue_and_high_is_orange(model, ctf_project):
    new = tables()
    new["particles"]["rlnDefocusU"] = new["particles"]["rlnDefocusV"] = 10000.0 + np.arange(COUNT)
    write_star("particles.star", new)
    view = MicrographView(model, read_fits(Path("particles.star")))
    red, blue = view.points.face_color[:, 0], view.points.face_color[:, 2]
    assert blue[0] > 0.9 > 0.2 > red[0]
    assert red[-1] > 0.9 > 0.1 > blue[-1]
    assert view.points.face_contrast_limits == (10000.0, 10019.0)
    assert view.points.name == "Defocus (Å) of mic0.mrc"


def test_changes_are_coloured_evenly_about_zero(view):
    view.colour_by(CHANGE)
    low, high = view.points.face_contrast_limits
    assert low == -high
    assert high >= SHIFT
    np.testing.assert_allclose(view.points.features[CHANGE], SHIFT, rtol=1e-6)


def test_all_values_can_be_read_under_the_mouse(view):
    assert view.viewer.tooltip.visible
    assert view.viewer.layers.selection.active is view.points
    assert {"Particle", DEFOCUS, CHANGE, "Astigmatism (Å)", "± Defocus (Å)"} <= set(view.points.features)
    assert view.points.features["Astigmatism (Å)"].tolist() == [100.0] * 20


def test_only_one_micrographs_points_are_in_the_layer(view):
    assert len(view.points.data) == 20
    view.show(2)
    assert view.points.features["Particle"].tolist() == list(range(41, 61))
    view.show(99)
    assert view.number == 2


def test_a_selected_point_is_a_selected_particle_and_the_other_way_round(view):
    view.show(1)
    view.points.selected_data = {3, 5}
    assert np.flatnonzero(view.fits.selected).tolist() == [23, 25]
    view.show(0)
    view.fits.select(np.array([2, 24]))
    assert view.points.selected_data == {2}
    assert view.points.border_width[2] > view.points.border_width[1]
    view.show(1)
    assert view.points.selected_data == {4}
    view.points.selected_data = set()
    assert np.flatnonzero(view.fits.selected).tolist() == [2]


def test_outliers_are_far_from_their_own_micrograph(view):
    fits = view.fits
    assert np.flatnonzero(fits.outliers(CHANGE, 4.0)).tolist() == [COUNT - 1]
    # defocus differs by a thousand from one micrograph to the next, which makes no outliers
    assert np.flatnonzero(fits.outliers(DEFOCUS, 4.0)).tolist() == [COUNT - 1]


def test_how_far_an_outlier_is_counts_in_deviations(ctf_project, rng):
    new = tables()
    defocus = 10000.0 + 1000 * (np.arange(COUNT) // 20) + rng.normal(0, 100, COUNT)
    defocus[[7, 48]] += (900, -900)
    new["particles"]["rlnDefocusU"] = new["particles"]["rlnDefocusV"] = defocus
    write_star("particles.star", new)
    fits = read_fits(Path("particles.star"))
    assert np.flatnonzero(fits.outliers(DEFOCUS, 5.0)).tolist() == [7, 48]
    assert 5 < fits.outliers(DEFOCUS, 1.0).sum() < 35
    assert not fits.outliers(DEFOCUS, 20.0).any()


def test_selected_particles_and_the_rest_are_written_with_all_their_columns(view):
    from cryorefine.errors import UserError

    view.fits.select(np.array([1, 59]))
    view.fits.write(Path("some.star"), view.fits.selected)
    view.fits.write(Path("rest.star"), ~view.fits.selected)
    some, rest = read_particles("some.star"), read_particles("rest.star")
    whole = read_particles(FOLDER / "particles_ctf_refine.star")
    assert some.optics.equals(whole.optics)
    assert some.particles.equals(whole.particles.iloc[[1, 59]].reset_index(drop=True))
    assert len(rest.particles) == COUNT - 2
    with pytest.raises(UserError, match="No particle"):
        view.fits.write(Path("none.star"), np.zeros(COUNT, bool))


def test_a_running_job_is_followed_micrograph_by_micrograph(model, ctf_project):
    events = []
    for event in ctf_refine.run(job()):
        if isinstance(event, Product):
            events.append(event)
            show_event(model, event, FOLDER)
            if event.kind == "defocus_fit" and "mic1" in event.path.name:
                break
    view = next(layer.metadata["view"] for layer in model.layers if "view" in layer.metadata)
    assert view.points.features[DEFOCUS].tolist() == [9950 + SHIFT] * 20
    # what is not shown is read when it is wanted
    assert view.fits.expected == [1]
    assert (~np.isnan(view.fits.column(CHANGE))).tolist() == [True] * 20 + [False] * 40
    view.show(1)
    assert view.points.features[DEFOCUS].tolist() == [10950 + SHIFT] * 20
    view.show(2)
    assert view.points.features[DEFOCUS].tolist() == [11950.0] * 20
    assert [event.kind for event in events] == ["ctf_particles", "defocus_fit", "defocus_fit"]


def test_the_result_takes_the_place_of_what_was_followed(model, ctf_project):
    for event in ctf_refine.run(job()):
        show_event(model, event, FOLDER)
        if isinstance(event, Product) and event.kind == "ctf_particles" and "job024" not in str(event.path):
            view = next(layer.metadata["view"] for layer in model.layers if "view" in layer.metadata)
            view.show(1)
            view.fits.select(np.array([25]))
    before = list(model.layers)
    open_results(model, FOLDER)
    assert list(model.layers) == before
    assert view.number == 1
    assert np.flatnonzero(view.fits.selected).tolist() == [25]
    assert view.fits.file.path == FOLDER / "particles_ctf_refine.star"
    assert all(layer.visible for layer in model.layers)


def test_a_job_of_relion_tells_the_change_from_its_input(model, done):
    path = done / "particles_ctf_refine.star"
    file = read_particles(path)
    own = [label for label in file.particles if label.startswith("cryorefine")]
    from cryorefine.io.particles import write_particles

    write_particles(path, file.replace(particles=file.particles.drop(columns=own)))
    open_results(model, done)
    view = next(layer.metadata["view"] for layer in model.layers if "view" in layer.metadata)
    np.testing.assert_allclose(view.fits.column(CHANGE)[:20], SHIFT)


def test_particles_without_places_show_nothing(model, ctf_project):
    new = tables()
    new["particles"] = new["particles"].drop(columns="rlnCoordinateX")
    write_star("particles.star", new)
    show_event(model, Product("ctf_particles", Path("particles.star")), FOLDER)
    assert len(model.layers) == 0


def test_a_form_on_which_nothing_is_selected_says_so_by_its_labels(viewer, ctf_project, messages):
    from napari_cryorefine.widgets import CtfRefineForm

    form = CtfRefineForm(viewer)
    form.page.update(particles=Path("particles.star"), postprocess=Path("postprocess.star"))
    form.run()
    assert not form.is_running
    assert form.status.text() == (
        "Nothing is selected to be fitted; choose 'Fit defocus' per-particle, 'Estimate beamtilt' or another "
        "fit."
    )
    form.close()


@pytest.fixture
def panel(viewer, done):
    """The dock of a finished job in a real window."""
    open_results(viewer, done)
    return viewer.window.dock_widgets[DOCK]


def test_the_slider_and_the_list_go_through_the_micrographs(panel):
    panel.slider.setValue(2)
    assert panel.view.number == 2
    assert panel.names.currentText() == "mic2.mrc"
    assert panel.table.rows.tolist() == list(range(40, 60))
    panel.show_micrograph(1)
    assert panel.slider.value() == 1


def test_rows_and_points_are_selected_together(panel):
    panel.table.selectRow(4)
    assert panel.view.points.selected_data == {4}
    panel.view.points.selected_data = {7}
    assert [index.row() for index in panel.table.selectionModel().selectedRows()] == [7]
    assert panel.count.text() == "1 of 60 selected"
    # also where the table is sorted by something else
    panel.table.sortByColumn(panel.view.fits.columns.index("± Defocus (Å)") + 2, _descending())
    assert panel.table.rows[0] == 19
    assert [index.row() for index in panel.table.selectionModel().selectedRows()] == [19 - 7]
    panel.table.selectRow(0)
    assert panel.view.points.selected_data == {19}


def test_outliers_are_selected_listed_and_left_out(panel, tmp_path):
    panel.colouring.setCurrentText(CHANGE)
    panel.select_outliers()
    assert panel.listed.currentText() == SHOWN[1]
    assert panel.table.rows.tolist() == [COUNT - 1]
    assert not panel.table.isColumnHidden(1)
    panel.table.doubleClicked.emit(panel.table.model().index(0, 0))
    assert panel.view.number == 2
    assert panel.view.points.selected_data == {19}
    panel.write(tmp_path / "good.star", selected=False)
    assert len(read_particles(tmp_path / "good.star").particles) == COUNT - 1
    assert "good.star" in panel.status.text()
    panel.clear.click()
    assert not panel.view.fits.selected.any()
    panel.write(tmp_path / "none.star", selected=True)
    assert "No particle" in panel.status.text()


def test_a_row_of_another_micrograph_brings_it_up(panel):
    panel.listed.setCurrentText(SHOWN[2])
    assert len(panel.table.rows) == COUNT
    panel.table.selectRow(45)
    assert panel.view.number == 2
    assert panel.view.points.selected_data == {5}


def test_aberrations_stand_side_by_side(viewer, panel, done):
    dock = viewer.window.dock_widgets[ABERRATIONS]
    titles = [picture.title for picture in dock.shown]
    assert titles == ["odd aberrations", "magnification along x", "magnification along y"]
    assert dock.shown[0].fitted.shape == (BOX, BOX)
    seen = np.isfinite(dock.shown[0].observed)
    assert seen.any()
    difference = (dock.shown[0].observed - dock.shown[0].fitted)[seen]
    assert np.abs(np.median(difference)) < 0.02
    assert dock.values.text() == "beam tilt (1.200 ± 0.030, -0.700 ± 0.040) mrad"
    viewer.theme = "light"
    viewer.theme = "dark"


def test_opening_again_keeps_one_dock(viewer, panel, done):
    open_results(viewer, done)
    assert viewer.window.dock_widgets[DOCK] is panel
    viewer.layers.clear()
    open_results(viewer, done)
    assert viewer.window.dock_widgets[DOCK] is not panel
    assert len(viewer.layers) == 2


def test_a_window_reads_by_and_by_what_is_not_shown(viewer, ctf_project, qtbot):
    for event in ctf_refine.run(job()):
        if isinstance(event, Product):
            show_event(viewer, event, FOLDER)
            if event.kind == "defocus_fit" and "mic2" in event.path.name:
                break
    fits = viewer.window.dock_widgets[DOCK].view.fits
    assert fits.expected == [1, 2]
    qtbot.waitUntil(lambda: not fits.expected, timeout=5000)
    assert not np.isnan(fits.column(CHANGE)).any()


def test_of_many_optics_groups_only_the_one_that_is_shown_is_read(viewer, ctf_project, monkeypatch):
    from napari_cryorefine import aberration_panel

    read = []
    original = aberration_panel.read_pictures
    monkeypatch.setattr(
        aberration_panel, "read_pictures", lambda folder, group: read.append(group) or original(folder, group)
    )
    write_star("particles.star", tables(groups=3))
    for event in ctf_refine.run(job(fit_beamtilt=True)):
        if isinstance(event, Figures) or (isinstance(event, Product) and event.kind != "ctf_particles"):
            show_event(viewer, event, FOLDER)
    dock = viewer.window.dock_widgets[ABERRATIONS]
    assert [dock.group.itemData(i) for i in range(dock.group.count())] == [1, 2, 3]
    assert set(read) == {1}
    dock.group.setCurrentIndex(2)
    assert [picture.group for picture in dock.shown] == [3]
    assert "beam tilt x of g3 (mrad): 3.200 ± 0.030" in dock.values.text()


def test_particles_without_a_beam_tilt_have_nothing_said_of_it(done):
    assert optics_texts(read_particles("particles.star")) == []


def click(view, position, *, shift=False, drag=False):
    """Press and release the mouse at a place of the points layer, as napari tells it."""
    from types import SimpleNamespace

    event = SimpleNamespace(type="mouse_press", position=position, modifiers=("Shift",) if shift else ())
    going = view.points.mouse_drag_callbacks[-1](view.points, event)
    next(going)
    if drag:
        event.type = "mouse_move"
        next(going)
    event.type = "mouse_release"
    next(going, None)


def test_a_click_selects_a_particle_and_a_drag_does_not(view):
    places = view.points.data
    click(view, places[3])
    assert np.flatnonzero(view.fits.selected).tolist() == [3]
    click(view, places[5], shift=True)
    assert np.flatnonzero(view.fits.selected).tolist() == [3, 5]
    click(view, places[3], shift=True)
    assert np.flatnonzero(view.fits.selected).tolist() == [5]
    click(view, places[7], drag=True)
    assert np.flatnonzero(view.fits.selected).tolist() == [5]
    click(view, places[7])
    assert view.points.selected_data == {7}
    click(view, (-900.0, -900.0))
    assert not view.fits.selected.any()


def _descending():
    from qtpy.QtCore import Qt

    return Qt.SortOrder.DescendingOrder
