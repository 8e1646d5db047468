"""pseudo-subtomo as a job: files, resuming, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tomo.conftest import Project

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import read_layout, read_map
from cryorefine.io.optimisation_set import OptimisationSet, read_optimisation_set, write_optimisation_set
from cryorefine.io.particles import read_particles
from cryorefine.io.star import read_star, write_star
from cryorefine.io.tomograms import read_tomograms
from cryorefine.io.trajectories import read_trajectories, write_trajectories
from cryorefine.jobs import finish, pseudo_subtomo
from cryorefine.jobs.base import Notice
from cryorefine.tomo.particles import read_subtomograms

OUT = Path("Extract/job001")


def options(project, **changes):
    given = {"box_size": 24, "output": OUT, "threads": 2} | changes
    if "optimisation_set" not in given:
        given = {"particles": project.particles, "tomograms": project.tomograms} | given
    return pseudo_subtomo.Options(**given)


def extract(project, **changes):
    return finish(pseudo_subtomo.run(options(project, **changes)))


def test_stacks_and_tables_are_written_as_relion_does(project_of_dots):
    result = extract(project_of_dots)
    assert (result.extracted, result.left_out) == (4, 1)
    blocks = read_star(result.particles)
    assert blocks["general"] == {"rlnTomoSubTomosAre2DStacks": 1}
    optics = blocks["optics"].iloc[0]
    assert optics["rlnCtfDataAreCtfPremultiplied"] == 1
    assert optics["rlnImageDimensionality"] == 2
    assert optics["rlnImagePixelSize"] == 2.0
    assert optics["rlnImageSize"] == 24
    table = blocks["particles"]
    assert table["rlnImageName"][1] == "Extract/job001/Subtomograms/TS_1/2_stack2d.mrcs"
    assert table["rlnTomoVisibleFrames"][0] == "[1,1,1,1,1]"
    assert read_layout(table["rlnImageName"][1]).dtype == np.float16
    entries = read_optimisation_set(result.optimisation_set)
    assert str(entries.particles) == "Extract/job001/particles.star"


def test_offsets_become_coordinates_or_stay(tmp_path, project_of_dots):
    project_of_dots.write_tables(
        rlnOriginXAngst=4.0, rlnOriginYAngst=-2.0, rlnOriginZAngst=6.0, rlnTomoSubtomogramRot=30.0
    )
    tomograms = read_tomograms(project_of_dots.tomograms)
    before = read_subtomograms(project_of_dots.particles, tomograms)
    series, rows = next(before.by_tomogram())
    after = read_subtomograms(extract(project_of_dots).particles, tomograms)
    assert np.allclose(after.positions(series, rows[:4]), before.positions(series, rows[:4]))
    assert not after.offsets.any()
    left = extract(project_of_dots, output=Path("Extract/job002"), apply_offsets=False)
    kept = read_subtomograms(left.particles, tomograms)
    assert np.array_equal(kept.offsets, before.offsets[:4])
    assert np.allclose(kept.centred, project_of_dots.centred[:4])


def test_dose_and_frames_decide_what_is_kept(project_of_dots):
    table = read_particles(extract(project_of_dots, max_dose=20).particles).particles
    assert table["rlnTomoVisibleFrames"].tolist() == ["[0,1,1,1,0]"] * 4
    assert ImageReader().count(table["rlnImageName"][0]) == 3
    with pytest.raises(UserError, match=r"seen by 4 tilt images with a dose of at most 20"):
        extract(project_of_dots, max_dose=20, min_frames=4, output=Path("Extract/job002"))
    with pytest.raises(UserError, match=r"seen by 9 tilt images, but by 5 at most; give fewer --min-frames"):
        extract(project_of_dots, min_frames=9, output=Path("Extract/job002"))


def test_volumes_come_with_weights(project_of_dots):
    result = extract(project_of_dots, stack_2d=False, crop_size=16)
    table = read_particles(result.particles).particles
    assert read_star(result.particles)["general"] == {"rlnTomoSubTomosAre2DStacks": 0}
    assert read_map(table["rlnImageName"][0]).data.shape == (16, 16, 16)
    weights = read_map(table["rlnCtfImage"][0])
    assert table["rlnCtfImage"][0].endswith("TS_1/1_weights.mrc")
    assert weights.data.shape == (32, 16, 9)
    assert np.isclose(weights.pixel_size, 0.5)


def test_entries_of_the_optimisation_set_are_kept_and_trajectories_follow_the_particles(project_of_dots):
    Path("half1.mrc").touch()
    shifts = {f"TS_1/{i}": np.full((5, 3), float(i)) for i in range(1, 6)}
    write_trajectories("motion.star", shifts)
    project_of_dots.write_tables(rlnTomoParticleName=list(shifts))
    entries = OptimisationSet(
        particles=project_of_dots.particles,
        tomograms=project_of_dots.tomograms,
        trajectories=Path("motion.star"),
        reference_half1=Path("half1.mrc"),
    )
    write_optimisation_set("set.star", entries)
    result = extract(project_of_dots, optimisation_set=Path("set.star"))
    after = read_optimisation_set(result.optimisation_set)
    assert str(after.reference_half1) == "half1.mrc"
    assert list(read_trajectories(after.trajectories)) == ["TS_1/1", "TS_1/2", "TS_1/3", "TS_1/4"]


def test_an_interrupted_run_goes_on_with_what_is_whole(project_of_dots):
    extract(project_of_dots)
    stacks = sorted((OUT / "Subtomograms/TS_1").iterdir())
    whole = [path.read_bytes() for path in stacks]
    (OUT / "RELION_JOB_EXIT_SUCCESS").unlink()
    stacks[0].unlink()
    stacks[1].write_bytes(whole[1][:1500])
    untouched = stacks[2].stat().st_mtime_ns
    extract(project_of_dots)
    assert [path.read_bytes() for path in stacks] == whole
    assert stacks[2].stat().st_mtime_ns == untouched
    (OUT / "RELION_JOB_EXIT_SUCCESS").unlink()
    extract(project_of_dots, premultiply=False)
    assert stacks[2].read_bytes() != whole[2]


def test_particles_outside_the_images_are_explained(project_of_dots):
    far = Project(project_of_dots.folder, project_of_dots.centred + 5000)
    with pytest.raises(
        UserError, match=r"No particle lies in the tilt images: TS_1/1 .*projected to \(\d+, "
    ):
        extract(far)
    assert not OUT.exists()


def test_black_particles_are_told(project_of_dots):
    images = np.memmap("TS_1.mrcs", dtype="<f2", mode="r+", offset=1024)
    images[:] = 0
    images.flush()
    events = list(pseudo_subtomo.run(options(project_of_dots)))
    told = [event.message for event in events if isinstance(event, Notice)]
    assert any("4 particles are black, TS_1/1 among them" in message for message in told)


def test_what_does_not_go_together_is_refused(project_of_dots):
    with pytest.raises(UserError, match="--box-size 23 is odd"):
        extract(project_of_dots, box_size=23)
    with pytest.raises(UserError, match="--crop-size 32 is larger than --box-size 24"):
        extract(project_of_dots, crop_size=32)
    with pytest.raises(UserError, match="give --optimisation-set, or both"):
        extract(project_of_dots, tomograms=None)


def test_projection_matrices_of_relion_4_and_one_stack_give_the_same_images(project_of_dots):
    """RELION 4 keeps matrices in the tomograms' own file, and the tilt images in one stack."""
    first = extract(project_of_dots)
    blocks = read_star("tomograms.star")
    series = read_tomograms("tomograms.star")["TS_1"]
    rows = zip(("X", "Y", "Z", "W"), np.moveaxis(series.projections, 1, 0), strict=True)
    tilts = read_star("TS_1.star")["TS_1"].assign(**{f"rlnTomoProj{axis}": list(row) for axis, row in rows})
    angles = [
        label for label in tilts if label.startswith(("rlnTomoX", "rlnTomoY", "rlnTomoZ", "rlnMicrographN"))
    ]
    table = blocks["global"].drop(columns="rlnTomoTiltSeriesStarFile")
    write_star(
        "four.star",
        {"global": table.assign(rlnTomoTiltSeriesName="TS_1.mrcs"), "TS_1": tilts.drop(columns=angles)},
    )
    second = extract(project_of_dots, tomograms=Path("four.star"), output=Path("Extract/job002"))
    for name in ("1", "2", "3", "4"):
        one, two = (result.output / f"Subtomograms/TS_1/{name}_stack2d.mrcs" for result in (first, second))
        ours, theirs = (ImageReader().read_stack(str(path)) for path in (one, two))
        assert np.allclose(ours, theirs, atol=2e-3)


def test_trajectories_move_what_is_cut_out(project_of_dots):
    """The same shift in every tilt is another coordinate."""
    shift = np.array([4.0, -3.0, 5.0])
    write_trajectories("motion.star", {f"TS_1/{i}": np.tile(shift, (5, 1)) for i in range(1, 6)})
    moved = extract(project_of_dots, trajectories=Path("motion.star"))
    project_of_dots.centred = project_of_dots.centred + shift
    project_of_dots.write_tables()
    other = extract(project_of_dots, output=Path("Extract/job002"))
    for name in ("1", "4"):
        stacks = [
            ImageReader().read_stack(str(result.output / f"Subtomograms/TS_1/{name}_stack2d.mrcs"))
            for result in (moved, other)
        ]
        assert np.allclose(*stacks, atol=2e-3)
        assert np.abs(stacks[0]).max() > 0.05


def test_a_missing_tilt_image_is_named_before_anything_is_made(project_of_dots):
    tilts = read_star("TS_1.star")["TS_1"]
    tilts.loc[3, "rlnMicrographName"] = "gone.mrc"
    write_star("TS_1.star", {"TS_1": tilts})
    with pytest.raises(UserError, match=r"tilt image gone\.mrc of TS_1 is missing"):
        extract(project_of_dots)
    assert not OUT.exists()
