"""The jobs on maps write the same with a GPU as without, also where its memory is too small."""

from __future__ import annotations

import numpy as np
import pytest

from cryorefine.io.mrc import read_map, write_map
from cryorefine.jobs import finish, local_resolution, mask_create, postprocess
from cryorefine.jobs.base import Notice
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


def both(job, folder, **options):
    """Run a job on the processor and on a GPU; returns the folders and what was warned of on the GPU."""
    warned = []
    for device in ("cpu", "gpu:0"):
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


def test_local_resolution(folder, too_little):
    given = {"half_map": folder / "run_half2.mrc", "mask": folder / "mask.mrc", "sampling": 10.0}
    here, there, warned = both(local_resolution, folder, smooth=True, **given)
    compare(here, there, ["relion_locres.mrc", "relion_locres_filtered.mrc", "locres_smooth.mrc"], 1e-4)
    assert len(warned) == too_little


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
