"""What is wrong with the tables of tilt series is said before any work: file, value, remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.mrc import write_stack
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import finish, pseudo_subtomo, reconstruct_particle
from cryorefine.jobs.base import Notice

OUT = Path("Extract/job001")


def extract(project, **changes):
    given = {"particles": project.particles, "tomograms": project.tomograms, "output": OUT, "box_size": 24}
    return pseudo_subtomo.run(pseudo_subtomo.Options(**given | {"threads": 1} | changes))


def reconstruct(project, **changes):
    given = {"particles": project.particles, "tomograms": project.tomograms, "box_size": 24}
    given |= {"output": Path("Reconstruct/job001"), "threads": 1}
    return reconstruct_particle.run(reconstruct_particle.Options(**given | changes))


def change(path, block, label, value, row=None):
    """Write a value into a column of a STAR file, in one row or all of them."""
    blocks = read_star(path)
    table = blocks[block]
    values = table[label].astype(object if isinstance(value, str) else float).to_numpy(copy=True)
    values[slice(None) if row is None else row] = value
    write_star(path, blocks | {block: table.assign(**{label: values})})


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("rlnTomoYTilt", np.nan, "has nan as rlnTomoYTilt of image 3 in data_TS_1"),
        ("rlnDefocusU", np.inf, "has inf as rlnDefocusU of image 3"),
        ("rlnMicrographPreExposure", -5.0, "has -5 as rlnMicrographPreExposure of image 3"),
        ("rlnTomoXShiftAngst", "None", "rlnTomoXShiftAngst that are no numbers"),
    ],
)
def test_a_tilt_with_an_impossible_value_is_named(project_of_dots, label, value, said):
    change(project_of_dots.folder / "TS_1.star", "TS_1", label, value, row=2)
    with pytest.raises(UserError, match=r"TS_1\.star") as error:
        finish(extract(project_of_dots))
    assert said in str(error.value)
    assert not OUT.exists()


@pytest.mark.parametrize(
    ("label", "value", "said"),
    [
        ("rlnVoltage", 0.0, "has 0.0 as rlnVoltage of tomogram TS_1; give a number above 0"),
        ("rlnVoltage", 300000.0, "has 300000.0 as rlnVoltage of tomogram TS_1; give it in kV"),
        (
            "rlnSphericalAberration",
            27.0,
            "has 27.0 as rlnSphericalAberration of tomogram TS_1; give it in mm",
        ),
        ("rlnTomoTiltSeriesPixelSize", np.nan, "has nan as rlnTomoTiltSeriesPixelSize"),
        ("rlnTomoSizeZ", -10, "has -10.0 as rlnTomoSizeZ"),
        ("rlnAmplitudeContrast", 7.0, "fraction from 0 to 1"),
        ("rlnTomoHand", 0, "give 1 or -1"),
        (
            "rlnSphericalAberration",
            "None",
            "has None as rlnSphericalAberration of tomogram",
        ),
    ],
)
def test_a_tomogram_with_an_impossible_value_is_named(project_of_dots, label, value, said):
    change(project_of_dots.tomograms, "global", label, value)
    with pytest.raises(UserError, match=r"tomograms\.star") as error:
        finish(extract(project_of_dots))
    assert said in str(error.value)
    assert not OUT.exists()


def test_a_row_of_a_projection_matrix_must_have_four_numbers(project_of_dots):
    path = project_of_dots.folder / "TS_1.star"
    blocks = read_star(path)
    rows = {f"rlnTomoProj{axis}": "[1,0,0,0]" for axis in "XYZW"}
    write_star(path, {"TS_1": blocks["TS_1"].assign(**rows | {"rlnTomoProjY": "[0,1,0]"})})
    with pytest.raises(UserError, match=r"has \[0,1,0\] as rlnTomoProjY of image 1 in data_TS_1"):
        finish(extract(project_of_dots))
    write_star(path, {"TS_1": blocks["TS_1"].assign(**rows | {"rlnTomoProjZ": "0 0 1 0"})})
    with pytest.raises(UserError, match=r"TS_1\.star has 0 0 1 0 as rlnTomoProjZ, which is no vector"):
        finish(extract(project_of_dots))


@pytest.mark.parametrize("text", ["nan", "soon"])
def test_a_trajectory_that_is_no_numbers_is_named(project_of_dots, text):
    labels = "".join(f"_rlnOrigin{axis}Angst\n" for axis in "XYZ")
    tables = "".join(f"\ndata_TS_1/{n}\n\nloop_\n{labels}" + f"0 {text} 0\n" * 5 for n in range(1, 6))
    Path("motion.star").write_text(f"\ndata_general\n\n_rlnParticleNumber 5\n{tables}")
    with pytest.raises(UserError, match=r"motion\.star has shifts in data_TS_1/1 that are no numbers"):
        finish(extract(project_of_dots, trajectories=Path("motion.star")))


def test_visible_frames_that_are_no_list_are_named(project_of_dots):
    project_of_dots.write_tables(rlnTomoVisibleFrames="all")
    with pytest.raises(UserError, match=r"particles\.star has all as rlnTomoVisibleFrames, which is no vec"):
        finish(reconstruct(project_of_dots))


def test_a_tilt_image_that_is_cut_short_is_named_before_anything_is_made(project_of_dots):
    path = project_of_dots.folder / "TS_1.mrcs"
    path.write_bytes(path.read_bytes()[:-100])
    for run in (extract(project_of_dots), reconstruct(project_of_dots)):
        with pytest.raises(UserError, match=r"TS_1\.mrcs is truncated"):
            finish(run)
    assert not OUT.exists()


def test_both_jobs_say_where_particles_are_projected_to_when_no_image_shows_them(project_of_dots):
    project_of_dots.centred[:, 1] += 5000
    project_of_dots.write_tables()
    for run in (extract(project_of_dots), reconstruct(project_of_dots)):
        with pytest.raises(UserError, match=r"TS_1/1 of .* is projected to \(.*\) in images of 160 x 140 px"):
            finish(run)


def test_half_sets_other_than_1_and_2_are_refused_and_a_single_one_is_told(project_of_dots):
    project_of_dots.write_tables(rlnRandomSubset=[1, 2, 3, 1, 2])
    with pytest.raises(UserError, match=r"has rlnRandomSubset 3; give every particle 1 or 2"):
        finish(reconstruct(project_of_dots))
    project_of_dots.write_tables(rlnRandomSubset=2)
    events = list(reconstruct(project_of_dots))
    said = [event.message for event in events if isinstance(event, Notice)]
    assert any("All particles are in half set 2 (rlnRandomSubset), so only merged.mrc" in one for one in said)


def test_a_box_that_is_wider_than_the_images_is_told(project_of_dots):
    for run in (
        extract(project_of_dots, box_size=150, crop_size=24),
        reconstruct(project_of_dots, box_size=150, crop_size=24),
    ):
        said = [event.message for event in run if isinstance(event, Notice)]
        assert any("150 px of the tilt images, but those of TS_1 have 160 x 140 px" in one for one in said)


def test_a_box_whose_sums_no_machine_holds_is_refused_at_once(project_of_dots):
    with pytest.raises(UserError, match=r"--box-size 8192 needs 8\d\d\d GB of memory for the sums, but this"):
        finish(reconstruct(project_of_dots, box_size=8192, crop_size=24))
    assert not Path("Reconstruct").exists()


def test_images_are_cut_anew_when_their_tilt_images_or_tables_have_changed(project_of_dots):
    """A run that goes on trusts only what was made of the same input, whatever column it is."""

    def interrupted():
        run = extract(project_of_dots, float16=False)
        for _ in range(3):
            next(run)
        run.close()
        return sorted(OUT.glob("**/*.mrcs"))

    def record():
        return (OUT / "extraction.sha256").read_text()

    interrupted()
    first = record()
    interrupted()
    assert record() == first
    change(project_of_dots.folder / "TS_1.star", "TS_1", "rlnDefocusAngle", 77.0)
    interrupted()
    second = record()
    assert second != first
    write_stack(project_of_dots.folder / "TS_1.mrcs", 2 * project_of_dots.images, 2.0)
    interrupted()
    assert record() not in (first, second)
