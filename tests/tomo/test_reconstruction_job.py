"""reconstruct-particle as a job, beside RELION's maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cryorefine.errors import UserError
from cryorefine.geometry.euler import angles, matrices
from cryorefine.io.mrc import read_map, write_map
from cryorefine.io.optimisation_set import read_optimisation_set
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import finish, pseudo_subtomo, reconstruct_particle
from cryorefine.jobs.base import Notice
from cryorefine.maps.filters import lowpass
from cryorefine.maps.fsc import fourier_shell_correlation


def reconstruct(folder, **options):
    given = {"output": folder, "box_size": 96, "crop_size": 64, "symmetry": "C6", "threads": 2} | options
    return finish(reconstruct_particle.run(reconstruct_particle.Options(**given)))


def particle_mask(truth):
    """Soft mask about the particle: 15 A low-pass, 4 A wider, with an edge of 6 A."""
    filtered = lowpass(truth, 2.7, 15.0)
    distance = 2.7 * ndimage.distance_transform_edt(filtered <= 0.1 * filtered.max()) - 4
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(distance / 6, 0, 1))).astype(np.float32)


@pytest.mark.parametrize("poses", ["truth", "particles"])
def test_maps_are_those_of_relion(tmp_path, sim_hiv: Path, poses):
    result = reconstruct(tmp_path / "job", optimisation_set=sim_hiv / f"{poses}_optimisation_set.star")
    truth = read_map(sim_hiv / "truth_map_64.mrc").data
    folder = sim_hiv / f"relion5/reconstruct_{poses}"
    theirs = {name: read_map(folder / f"{name}.mrc").data for name in ("half1", "half2", "merged")}
    for name, expected in theirs.items():
        ours = read_map(tmp_path / f"job/{name}.mrc")
        assert ours.pixel_size == 2.7
        assert fourier_shell_correlation(ours.data, expected)[: int(0.9 * 32) + 1].min() > 0.999
    ours = read_map(result.merged).data
    mask = particle_mask(truth)
    mean = [
        fourier_shell_correlation(volume * mask, truth * mask)[1:33].mean()
        for volume in (ours, theirs["merged"])
    ]
    assert mean[0] > mean[1] - 1e-3
    if poses == "truth":
        wrong = np.roll(ours[:, :, ::-1], 1, axis=2)
        assert fourier_shell_correlation(wrong * mask, truth * mask)[1:33].mean() < mean[0] - 0.1


@pytest.fixture
def extracted(sim_hiv: Path, tmp_path, monkeypatch):
    """Stacks of the simulated particles at their true poses, two-fold binned; the current directory."""
    monkeypatch.chdir(tmp_path)
    options = pseudo_subtomo.Options(
        optimisation_set=sim_hiv / "truth_optimisation_set.star",
        output=Path("Extract/job001"),
        binning=2,
        box_size=64,
        crop_size=32,
        threads=2,
    )
    return finish(pseudo_subtomo.run(options))


def test_stacks_give_the_same_map_as_the_tilt_images(tmp_path, sim_hiv: Path, extracted):
    from_stacks = reconstruct(Path("a"), optimisation_set=extracted.optimisation_set, source="stacks")
    from_images = reconstruct(
        Path("b"), optimisation_set=extracted.optimisation_set, binning=2, box_size=64, crop_size=32
    )
    one, two = (read_map(result.merged) for result in (from_stacks, from_images))
    assert one.data.shape == two.data.shape == (32, 32, 32)
    assert one.pixel_size == two.pixel_size == 5.4
    window = np.hanning(32)
    soft = (window[:, None, None] * window[:, None] * window).astype(np.float32)
    assert fourier_shell_correlation(one.data * soft, two.data * soft)[1:14].min() > 0.97
    assert np.isclose(np.polyfit(two.data.ravel(), one.data.ravel(), 1)[0], 1, atol=0.15)
    entries = read_optimisation_set(from_stacks.optimisation_set)
    assert (str(entries.reference_half1), str(entries.reference_half2)) == ("a/half1.mrc", "a/half2.mrc")


def test_offsets_move_stacks_as_they_move_particles(extracted):
    """A particle taken for 5.4 A off along its x axis makes a map that is off the other way."""
    blocks = read_star(extracted.particles)
    table = blocks["particles"]
    table["rlnAngleRot"] = table["rlnAngleTilt"] = table["rlnAnglePsi"] = 0.0
    write_star("still.star", blocks)
    table["rlnOriginXAngst"] = 5.4
    write_star("moved.star", blocks)
    tomograms = read_optimisation_set(extracted.optimisation_set).tomograms
    sets = {"tomograms": tomograms, "source": "stacks", "symmetry": "C1"}
    still, moved = (
        read_map(reconstruct(Path(name), particles=Path(f"{name}.star"), **sets).merged).data
        for name in ("still", "moved")
    )
    inner = (slice(8, 24),) * 3
    expected = np.roll(still, 1, axis=2)[inner]
    assert np.corrcoef(expected.ravel(), moved[inner].ravel())[0, 1] > 0.98


def test_maps_do_not_depend_on_the_number_of_threads(extracted):
    entries = extracted.optimisation_set
    results = [
        reconstruct(Path(f"job{n}"), optimisation_set=entries, source="stacks", threads=n) for n in (1, 3)
    ]
    assert np.array_equal(*(read_map(result.merged).data for result in results))


def test_visible_frames_and_dose_are_respected(extracted):
    """Leaving out images by the list, or by their dose, is the same."""
    few = reconstruct(Path("dose"), optimisation_set=extracted.optimisation_set, source="stacks", max_dose=30)
    blocks = read_star(extracted.particles)
    dose = np.concatenate([t["rlnMicrographPreExposure"] for t in read_star(_tilt_star(extracted)).values()])
    listed = ",".join(str(int(d <= 30)) for d in dose)
    blocks["particles"]["rlnTomoVisibleFrames"] = f"[{listed}]"
    write_star("listed.star", blocks)
    tomograms = read_optimisation_set(extracted.optimisation_set).tomograms
    images = {"binning": 2, "box_size": 64, "crop_size": 32, "tomograms": tomograms}
    by_list = reconstruct(Path("list"), particles=Path("listed.star"), **images)
    by_dose = reconstruct(Path("images"), particles=extracted.particles, max_dose=30, **images)
    assert np.array_equal(read_map(by_list.merged).data, read_map(by_dose.merged).data)
    everything = reconstruct(Path("all"), optimisation_set=extracted.optimisation_set, source="stacks")
    assert np.abs(read_map(few.merged).data - read_map(everything.merged).data).max() > 0.01


def test_stacks_that_do_not_fit_the_visible_frames_are_refused(extracted):
    """A stack of 41 images, with a tilt series of 40."""
    blocks = read_star(extracted.particles)
    blocks["particles"] = blocks["particles"].iloc[:60].assign(rlnTomoVisibleFrames=f"[0{',1' * 39}]")
    write_star("p.star", blocks)
    write_star("tilts.star", {name: t.iloc[1:] for name, t in read_star(_tilt_star(extracted)).items()})
    tomograms = read_star(read_optimisation_set(extracted.optimisation_set).tomograms)["global"]
    write_star("t.star", {"global": tomograms.iloc[:1].assign(rlnTomoTiltSeriesStarFile="tilts.star")})
    with pytest.raises(UserError, match="holds 41 images, but rlnTomoVisibleFrames of TS_01/1 lists 39"):
        reconstruct(Path("job"), particles=Path("p.star"), tomograms=Path("t.star"), source="stacks")


def _tilt_star(extracted) -> Path:
    tomograms = read_optimisation_set(extracted.optimisation_set).tomograms
    return tomograms.parent / "tilt_series/TS_01.star"


def test_a_mask_makes_post_processing_and_reference_entries(extracted):
    axis = np.arange(32) - 16
    r = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    write_map("mask.mrc", np.clip((14 - r) / 4, 0, 1), 5.4)
    result = reconstruct(
        Path("job"), optimisation_set=extracted.optimisation_set, source="stacks", fsc_mask=Path("mask.mrc")
    )
    assert 10.8 <= result.resolution < 14
    assert Path("job/PostProcess/postprocess.star").is_file()
    entries = read_optimisation_set(result.optimisation_set)
    assert str(entries.reference_mask) == "mask.mrc"
    assert str(entries.reference_fsc) == "job/PostProcess/postprocess.star"


def test_data_and_weights_are_written_when_asked_for(extracted):
    entries = extracted.optimisation_set
    reconstruct(Path("job"), optimisation_set=entries, source="stacks", sums=True, crop_size=24)
    weight = read_map("job/weight_merged.mrc").data
    assert weight.shape == (32, 32, 32)
    assert np.allclose(weight[10, 12, 20], weight[22, 20, 12], rtol=1e-4)
    assert read_map("job/data_half1.mrc").data.shape == (32, 32, 32)
    assert read_map("job/half1_full.mrc").data.shape == (32, 32, 32)
    assert read_map("job/half1.mrc").data.shape == (24, 24, 24)


def test_stacks_of_another_program_without_tilt_images(tmp_path, warp_stacks: Path):
    options = reconstruct_particle.Options(optimisation_set=warp_stacks, output=tmp_path / "job", threads=2)
    events = list(reconstruct_particle.run(options))
    told = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "made from the extracted stacks, in boxes of 32 px of 12 A" in told
    assert "no halves" in told
    found = read_map(tmp_path / "job/merged.mrc")
    assert found.pixel_size == 12
    # The ribosome is white, and its shape is that of the map made elsewhere; forty particles say no more.
    folder = warp_stacks.parent
    other = read_map(folder / "warptools_test_box-32_angpix-12_reconstruct.mrc", pixel_size=12).data
    assert found.data[12:20, 12:20, 12:20].mean() > 1.5 * found.data.std()
    window = np.hanning(32)
    soft = (window[:, None, None] * window[:, None] * window).astype(np.float32)
    assert fourier_shell_correlation(found.data * soft, other * soft)[1] > 0.9


def test_what_cannot_be_done_is_said(tmp_path, extracted, warp_stacks: Path):
    write_map("mask.mrc", np.ones((32, 32, 32)), 12)
    with pytest.raises(UserError, match=r"no halves .*leave --fsc-mask out"):
        reconstruct(Path("job"), optimisation_set=warp_stacks, fsc_mask=Path("mask.mrc"))
    write_map("small.mrc", np.ones((24, 24, 24)), 5.4)
    with pytest.raises(
        UserError, match=r"small\.mrc has 24 x 24 x 24 px, but the maps will have a box of 32"
    ):
        reconstruct(
            Path("job"),
            optimisation_set=extracted.optimisation_set,
            source="stacks",
            fsc_mask=Path("small.mrc"),
        )
    with pytest.raises(UserError, match=r"tilt images of Unt_083\.tomostar are missing"):
        reconstruct(Path("job"), optimisation_set=warp_stacks, source="tilt-images")
    with pytest.raises(UserError, match="Symmetry 'C0'"):
        reconstruct(Path("job"), optimisation_set=warp_stacks, symmetry="C0")


def test_refined_offsets_mean_the_same_for_stacks_and_tilt_images(extracted, rng):
    """Stacks are shifted, particles in tilt images are cut out elsewhere: both end in one map."""
    blocks = read_star(extracted.particles)
    table = blocks["particles"]
    offsets = rng.normal(scale=6.0, size=(len(table), 3))
    table["rlnTomoSubtomogramRot"], table["rlnTomoSubtomogramTilt"] = 40.0, 70.0
    poses = np.swapaxes(matrices(40.0, 70.0, 0.0), -1, -2) @ matrices(
        *(table[f"rlnAngle{angle}"].to_numpy() for angle in ("Rot", "Tilt", "Psi"))
    )
    for angle, values in zip(("Rot", "Tilt", "Psi"), angles(poses), strict=True):
        table[f"rlnAngle{angle}"] = values
    true = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
    moved = true + offsets @ matrices(40.0, 70.0, 0.0).T
    for i, axis in enumerate("XYZ"):
        table[f"rlnOrigin{axis}Angst"] = offsets[:, i]
        table[f"rlnCenteredCoordinate{axis}Angst"] = moved[:, i]
    write_star("refined.star", blocks)
    tomograms = read_optimisation_set(extracted.optimisation_set).tomograms
    again = finish(
        pseudo_subtomo.run(
            pseudo_subtomo.Options(
                particles=Path("refined.star"),
                tomograms=tomograms,
                output=Path("Extract/job002"),
                apply_offsets=False,
                binning=2,
                box_size=64,
                crop_size=32,
            )
        )
    )
    truth = reconstruct(Path("truth"), optimisation_set=extracted.optimisation_set, source="stacks")
    stacks = reconstruct(Path("stacks"), particles=again.particles, tomograms=tomograms, source="stacks")
    images = reconstruct(
        Path("images"), particles=again.particles, tomograms=tomograms, binning=2, box_size=64, crop_size=32
    )
    soft = np.hanning(32).astype(np.float32)
    soft = soft[:, None, None] * soft[:, None] * soft
    expected = read_map(truth.merged).data * soft
    for result, least in ((stacks, 0.95), (images, 0.95)):
        fsc = fourier_shell_correlation(read_map(result.merged).data * soft, expected)
        assert fsc[1:14].min() > least
