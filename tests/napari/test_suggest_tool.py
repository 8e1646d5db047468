"""Suggestions on the forms of subtomogram averaging."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from cryorefine.io.star import write_star
from napari_cryorefine.results import open_results
from napari_cryorefine.widgets import PseudoSubtomoForm, Refine3DForm

SECONDS = 20_000


@pytest.fixture
def tomograms(project: Path) -> Path:
    """A tomograms.star without images."""
    tilts = {
        "rlnMicrographName": ["1@a.mrcs"],
        "rlnMicrographPreExposure": 0.0,
        **{f"rlnTomo{name}": 0.0 for name in ("XTilt", "YTilt", "ZRot", "XShiftAngst", "YShiftAngst")},
        "rlnDefocusU": 33000.0,
    }
    row = {
        "rlnTomoName": ["TS_1"],
        "rlnTomoTiltSeriesStarFile": "TS_1.star",
        "rlnTomoTiltSeriesPixelSize": 1.35,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        **{f"rlnTomoSize{axis}": 1000 for axis in "XYZ"},
    }
    write_star(project / "TS_1.star", {"TS_1": pd.DataFrame(tilts)})
    write_star(project / "tomograms.star", {"global": pd.DataFrame(row)})
    return project / "tomograms.star"


def test_boxes_are_filled_in_with_their_reasons_and_may_be_changed(qtbot, model, tomograms, messages):
    form = PseudoSubtomoForm(model)
    qtbot.addWidget(form)
    form.page["tomograms"].value = tomograms
    form.page["binning"].value = 1
    form.suggest_tool.diameter.setValue(230)
    form.suggest_tool.button.click()
    qtbot.waitUntil(lambda: not form.suggest_tool.busy, timeout=SECONDS)
    assert form.page["crop_size"].value == 192
    assert 480 <= form.page["box_size"].value <= 540
    assert "3.30 µm" in form.page.reasons["box_size"].text()
    assert "Box size" in form.suggest_tool.told.text()
    form.page["box_size"].value = 400
    assert form.page["box_size"].value == 400


def test_what_is_missing_is_told_in_the_tool(qtbot, model, project, messages):
    form = PseudoSubtomoForm(model)
    qtbot.addWidget(form)
    form.suggest_tool.button.click()
    qtbot.waitUntil(lambda: not form.suggest_tool.busy, timeout=SECONDS)
    assert "need the tomograms" in form.suggest_tool.told.text()


def test_the_sampling_of_a_refinement_follows_filter_and_mask(qtbot, model, project, messages):
    form = Refine3DForm(model)
    qtbot.addWidget(form)
    form.page["initial_lowpass"].value = 12
    form.page["mask_diameter"].value = 230
    form.suggest_tool.button.click()
    qtbot.waitUntil(lambda: not form.suggest_tool.busy, timeout=SECONDS)
    assert form.page["initial_angular_sampling"].value == 3.7
    assert "arctan(2 d / D) = 6.0 degrees" in form.page.reasons["initial_angular_sampling"].text()


def test_a_reconstruction_is_shown_from_its_folder_and_an_extraction_needs_nothing(model, half_maps, project):
    folder = project / "Reconstruct/job001"
    folder.mkdir(parents=True)
    for path, name in zip((*half_maps, half_maps[0]), ("half1", "half2", "merged"), strict=True):
        shutil.copy(path, folder / f"{name}.mrc")
    layers = open_results(model, folder)
    assert [layer.visible for layer in layers] == [False, False, True]
    (project / "Extract/job002/Subtomograms").mkdir(parents=True)
    assert open_results(model, project / "Extract/job002") == []
