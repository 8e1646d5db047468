"""The jobs on maps write the same with a GPU as without, also where its memory is too small."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.compute import place
from cryorefine.errors import UserError
from cryorefine.io.mrc import read_map, write_map
from cryorefine.jobs import finish, local_resolution, mask_create, postprocess
from cryorefine.jobs.base import Notice
from cryorefine.maps import mask_recipe
from cryorefine.maps.filters import lowpass
from cryorefine.maps.masks import soft_sphere

SIZE, PIXEL = 32, 2.0


@pytest.fixture
def folder(tmp_path, rng):
    """Half maps of a ball with noise, and a mask."""
    ball = soft_sphere((SIZE,) * 3, 8, 2.0) * lowpass(rng.normal(size=(SIZE,) * 3), PIXEL, 8.0)
    for half in (1, 2):
        noise = 0.05 * rng.normal(size=ball.shape)
        write_map(tmp_path / f"run_half{half}.mrc", (ball + noise).astype(np.float32), PIXEL)
    write_map(tmp_path / "mask.mrc", soft_sphere((SIZE,) * 3, 9, 5.0), PIXEL)
    return tmp_path


def both(job, folder, gpu="gpu:0", **options):
    """Run a job on the processor and on a GPU; returns the folders and what was warned of on the GPU."""
    warned = []
    for device in ("cpu", gpu):
        output = folder / device[:3]
        output.parent.mkdir(exist_ok=True)
        running = job.run(job.Options(output=output, device=device, threads=1, **options))
        warned = [event.message for event in events(running) if isinstance(event, Notice) and event.warning]
    return folder / "cpu", folder / "gpu", [sentence for sentence in warned if "GPU" in sentence]


def events(running):
    while True:
        try:
            yield next(running)
        except StopIteration:
            return


def compare(here, there, names, atol):
    for name in names:
        expected = read_map(here / name).data
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(read_map(there / name).data, expected, atol=atol * np.abs(expected).max())


@pytest.mark.parametrize("phases", ["averaged", "drawn"])
def test_postprocess(folder, too_little, phases):
    given = {"half_map": folder / "run_half1.mrc", "mask": folder / "mask.mrc", "random_phases": phases}
    here, there, warned = both(postprocess, folder, half_maps=True, bfactor=-50.0, **given)
    names = ["postprocess.mrc", "postprocess_masked.mrc", "postprocess_half1.mrc", "postprocess_half2.mrc"]
    compare(here, there, names, 2e-5)
    assert len(warned) == too_little


def test_mask_create(folder, too_little):
    given = {"input": folder / "run_half1.mrc", "lowpass": 10.0, "threshold_from": "solvent"}
    shape = {"extend": 2.0, "soft_edge": 4.0, "keep_largest": 1, "fill_holes": True}
    here, there, warned = both(mask_create, folder, **given, **shape)
    compare(here, there, ["mask.mrc"], 1e-6)
    assert len(warned) == too_little


def test_a_large_mask_is_made_at_once_on_a_gpu_that_holds_it(folder, too_little, monkeypatch):
    monkeypatch.setattr(mask_create, "_LARGEST_WHOLE", SIZE)
    monkeypatch.setattr(place, "_PIECE", 2**14)
    by_slabs = mask_recipe.mask_by_slabs
    made = []
    monkeypatch.setattr(mask_recipe, "mask_by_slabs", lambda *a: (made.append("slabs"), by_slabs(*a)))
    second = {"second_map": folder / "run_half2.mrc", "combination": "or"}
    shape = {"lowpass": 10.0, "threshold_from": "solvent", "extend": 2.0, "soft_edge": 4.0, "invert": True}
    here, there, warned = both(mask_create, folder, input=folder / "run_half1.mrc", **second, **shape)
    compare(here, there, ["mask.mrc"], 1e-6)
    assert len(warned) == too_little
    assert made == ["slabs"] * (1 + too_little)


def test_a_large_mask_is_made_by_slabs_where_a_gpu_is_too_small_or_slabs_are_asked_for(folder, stand_in):
    stand_in.cuda.runtime.memGetInfo = lambda: (47 * SIZE**3, 2**40)
    given = {"input": folder / "run_half1.mrc", "lowpass": 0.0, "threshold": 0.5}
    for number, asked in enumerate(({}, {"slab": 7})):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mask_create, "_LARGEST_WHOLE", SIZE)
            options = mask_create.Options(output=folder / f"{number}", device="gpu", **asked, **given)
            told = [e.message for e in events(mask_create.run(options)) if isinstance(e, Notice)]
        assert any("too small" in each for each in told) == (not asked)
        assert any("as --slab says" in each for each in told) == bool(asked)
    compare(folder / "0", folder / "1", ["mask.mrc"], 0)


@pytest.mark.parametrize("device", ["cpu", "gpu:0"])
def test_a_large_map_without_numbers_is_refused(folder, stand_in, monkeypatch, device):
    monkeypatch.setattr(mask_create, "_LARGEST_WHOLE", SIZE)
    volume = read_map(folder / "run_half1.mrc").data.copy()
    volume[3, 4, 5] = np.nan
    write_map(folder / "nan.mrc", volume, PIXEL)
    options = mask_create.Options(input=folder / "nan.mrc", output=folder / "nan", device=device)
    with pytest.raises(UserError, match="NaN or infinite"):
        finish(mask_create.run(options))


def test_local_resolution(folder, too_little):
    given = {"half_map": folder / "run_half2.mrc", "mask": folder / "mask.mrc", "sampling": 10.0}
    here, there, warned = both(local_resolution, folder, smooth=True, **given)
    compare(here, there, ["relion_locres.mrc", "relion_locres_filtered.mrc", "locres_smooth.mrc"], 1e-4)
    assert len(warned) == too_little


@pytest.mark.parametrize("gpu", ["gpu:1", "gpu"])
def test_other_gpus_than_the_first_and_several_of_them(folder, two_gpus, monkeypatch, gpu):
    halves = {"half_map": folder / "run_half1.mrc", "mask": folder / "mask.mrc"}
    here, there, warned = both(postprocess, folder / "1", gpu, half_maps=True, **halves)
    compare(here, there, ["postprocess.mrc", "postprocess_half2.mrc"], 2e-5)
    shape = {"input": folder / "run_half1.mrc", "threshold_from": "mass", "mass": 2.0, "keep_largest": 2}
    for largest in (SIZE + 1, SIZE):
        monkeypatch.setattr(mask_create, "_LARGEST_WHOLE", largest)
        here, there, more = both(mask_create, folder / f"{largest}", gpu, resolution=4.0, **shape)
        compare(here, there, ["mask.mrc"], 1e-6)
        warned += more
    here, there, more = both(local_resolution, folder / "3", gpu, sampling=20.0, **halves)
    compare(here, there, ["relion_locres.mrc", "relion_locres_filtered.mrc"], 1e-4)
    assert warned + more == []


@pytest.mark.parametrize("job", [postprocess, mask_create, local_resolution], ids=lambda job: job.JOB.name)
def test_a_gpu_that_is_not_there_is_refused(folder, job):
    given = (
        {"input": folder / "run_half1.mrc"} if job is mask_create else {"half_map": folder / "run_half1.mrc"}
    )
    with pytest.raises(Exception, match="--device gpu:0"):
        finish(job.run(job.Options(output=folder / "job", device="gpu:0", **given)))
    assert not (folder / "job").exists()
    with pytest.raises(Exception, match="is not a device"):
        finish(job.run(job.Options(output=folder / "job", device="cuda", **given)))
