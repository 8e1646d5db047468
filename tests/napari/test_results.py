"""What jobs leave, shown: layers and curves from the folders of this program and of RELION."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_map
from cryorefine.jobs.base import Curve, Product
from napari_cryorefine import open_results
from napari_cryorefine.curves import postprocess_curves, refinement_curves
from napari_cryorefine.results import CURVES_DOCK, show_curve, show_event


def test_the_folder_of_a_refinement_shows_its_maps(model, betagal):
    layers = open_results(model, betagal / "relion5_refine3d")
    names = {layer.name: layer.visible for layer in layers}
    assert names["run_class001"]
    assert not names["run_half1_class001_unfil"]
    assert all(layer.metadata["path"] for layer in layers)


def test_opening_a_folder_twice_refreshes_its_layers(model, betagal):
    open_results(model, betagal / "relion5_refine3d")
    count = len(model.layers)
    assert open_results(model, betagal / "relion5_refine3d") == []
    assert len(model.layers) == count


def test_the_newest_result_is_what_is_seen(model, project, blob):
    for folder, name in (("Refine3D/job001", "run_class001"), ("PostProcess/job002", "postprocess")):
        (project / folder).mkdir(parents=True)
        write_map(project / folder / f"{name}.mrc", blob, 2.5)
    mine = model.add_image(blob, name="mine")
    open_results(model, project / "Refine3D/job001")
    open_results(model, project / "PostProcess/job002")
    assert {layer.name: layer.visible for layer in model.layers} == {
        "mine": True,
        "run_class001": False,
        "postprocess": True,
    }
    assert mine.visible


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_results_is_refused_in_a_sentence(model, project, make):
    if make:
        (project / "job001").mkdir()
    with pytest.raises(UserError, match="job001"):
        open_results(model, project / "job001")


def test_the_half_maps_of_each_iteration_replace_the_last_ones(model, project, blob):
    folder = project / "Refine3D" / "job001"
    folder.mkdir(parents=True)
    for iteration in (1, 2, 3):
        for half in (1, 2):
            path = folder / f"run_it00{iteration}_half{half}_class001.mrc"
            write_map(path, iteration * blob, 2.5)
            show_event(model, Product("half_map", path), folder)
    assert [layer.name for layer in model.layers] == [
        "run_it003_half1_class001",
        "run_it003_half2_class001",
    ]
    np.testing.assert_allclose(model.layers[0].data, 3 * blob, rtol=1e-6)
    model.layers[0].iso_threshold = 0.7
    assert model.layers[1].iso_threshold == 0.7


def test_products_of_two_jobs_do_not_replace_each_other(model, project, blob):
    for job in ("job001", "job002"):
        (project / job).mkdir()
        write_map(project / job / "postprocess.mrc", blob, 2.5)
        show_event(model, Product("map", project / job / "postprocess.mrc"), None)
    assert len(model.layers) == 2


def test_curves_of_relions_postprocess_are_read(betagal):
    fsc, guinier = postprocess_curves(betagal / "relion5_refine3d" / "postprocess.star")
    assert list(fsc.values) == ["corrected", "unmasked", "masked", "phase-randomised"]
    # RELION: FSC of the masked maps falls below 0.143 after shell 31, 7.31 A.
    crossed = np.flatnonzero(np.asarray(fsc.values["corrected"]) < 0.143)[0]
    assert 1 / fsc.frequency[crossed - 1] == pytest.approx(7.308387, rel=1e-4)
    # The fitted line has B/4 as its slope over 1/d^2.
    fit, square = np.asarray(guinier.values["fit"]), np.asarray(guinier.frequency) ** 2
    assert 4 * np.polyfit(square, fit, 1)[0] == pytest.approx(-276.54384, rel=1e-5)


def test_the_fsc_of_relions_refinement_is_read(betagal):
    (fsc,) = refinement_curves(betagal / "relion5_refine3d" / "run_model.star")
    assert np.asarray(fsc.values["unmasked"])[0] == pytest.approx(1, abs=0.01)
    assert fsc.frequency[1] == pytest.approx(1 / (64 * 3.54), rel=1e-3)


def test_a_curve_is_drawn_once_and_then_redrawn(viewer):
    frequency = [0.0, 0.1, 0.2]
    show_curve(viewer, Curve("FSC", frequency, {"unmasked": [1.0, 0.5, 0.1]}))
    show_curve(viewer, Curve("FSC", frequency, {"corrected": [1.0, 0.9, 0.2], "unmasked": [1.0, 0.6, 0.1]}))
    plot = viewer.window.dock_widgets[CURVES_DOCK].plots["FSC"]
    assert list(plot.curves) == ["corrected", "unmasked"]
    np.testing.assert_allclose(plot.curves["unmasked"], ([0, 0.1, 0.2], [1, 0.6, 0.1]))
    viewer.theme = "light"
    viewer.theme = "dark"


def test_a_guinier_plot_runs_over_the_square_of_the_frequency_and_leaves_out_empty_shells(qtbot):
    from napari_cryorefine.plots import CurvePlot

    plot = CurvePlot("Guinier")
    qtbot.addWidget(plot)
    plot.show_curve(Curve("Guinier", [0.1, 0.2, 0.3], {"original": [-5.0, float("nan"), -7.0]}))
    x, y = plot.curves["original"]
    np.testing.assert_allclose(x, [0.01, 0.09])
    np.testing.assert_allclose(y, [-5, -7])


def test_ticks_are_resolutions_in_angstrom():
    from napari_cryorefine.plots import resolution_text

    assert [resolution_text(f) for f in (0.0, 0.02, 0.15, 1 / 2.94)] == ["∞", "50", "6.7", "2.94"]
    assert resolution_text(0.04, squared=True) == "5.0"


def test_a_closed_plot_comes_back_with_the_next_curve(viewer):
    show_curve(viewer, Curve("FSC", [0.0, 0.1], {"unmasked": [1.0, 0.5]}))
    viewer.window.remove_dock_widget("all")
    show_curve(viewer, Curve("FSC", [0.0, 0.1], {"unmasked": [1.0, 0.4]}))
    assert CURVES_DOCK in viewer.window.dock_widgets
