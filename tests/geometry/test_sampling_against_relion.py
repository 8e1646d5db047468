"""The orientations that a RELION refinement assigns lie on our grid."""

import subprocess

import mrcfile
import numpy as np
import pytest
import starfile
from scipy.spatial import cKDTree

from cryorefine.geometry import SamplingGrid, matrices, point_group, translation_grid_2d
from cryorefine.geometry.healpix import oversampled_psi
from cryorefine.geometry.translations import oversample_translations

BOX, PIXEL = 32, 3.0


@pytest.mark.parametrize(("group", "order"), [("D2", 2), ("C6", 2)])
def test_refined_poses_lie_on_the_perturbed_fine_grid(tmp_path, relion, rng, group, order):
    program = relion("refine")
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = np.exp(-((x - 3) ** 2 + y**2 + (z - 4) ** 2) / 8) + np.exp(
        -((x + 4) ** 2 + (y - 5) ** 2 + z**2) / 8
    )
    for name, data in (("map.mrc", volume), ("images.mrcs", rng.normal(size=(6, BOX, BOX)))):
        with mrcfile.new(tmp_path / name) as mrc:
            mrc.set_data(data.astype(np.float32))
            mrc.voxel_size = PIXEL
    (tmp_path / "in.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnVoltage\n"
        "_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnImagePixelSize\n_rlnImageSize\n"
        f"_rlnImageDimensionality\nopticsGroup1 1 300 2.7 0.1 {PIXEL} {BOX} 2\n\n"
        "# version 30001\n\ndata_particles\n\nloop_\n_rlnImageName\n_rlnMicrographName\n_rlnOpticsGroup\n"
        + "".join(f"{i + 1:06d}@images.mrcs mic.mrc 1\n" for i in range(6))
        + "\n"
    )
    (tmp_path / "out").mkdir()
    options = (
        f"--i in.star --ref map.mrc --o out/run --iter 1 --healpix_order {order} --offset_range 3 "
        f"--offset_step 2 --oversampling 1 --sym {group} --K 1 --particle_diameter 70 --ini_high 15 "
        "--firstiter_cc --pad 1 --random_seed 3"
    )
    subprocess.run([program, *options.split()], cwd=tmp_path, check=True, capture_output=True)
    tables = starfile.read(tmp_path / "out" / "run_it001_sampling.star")
    general = tables["sampling_general"]
    general = general if isinstance(general, dict) else general.iloc[0].to_dict()
    perturbation = float(general["rlnSamplingPerturbInstance"])
    assert abs(perturbation) > 0.01

    found = starfile.read(tmp_path / "out" / "run_it001_data.star")["particles"]
    theirs = matrices(found.rlnAngleRot, found.rlnAngleTilt, found.rlnAnglePsi)
    # RELION's fine grid has the same in-plane angles for every direction.
    grid, finer = SamplingGrid(order, "C1", perturbation), SamplingGrid(order + 1)
    rot, tilt = (angle[:, None] for angle in finer.directions)
    ours = (
        matrices(rot, tilt, oversampled_psi(grid.psi, grid.step).ravel()) @ grid.perturbation_matrix
    ).reshape(-1, 9)
    distance, _ = cKDTree(ours).query(theirs.reshape(-1, 9))
    assert distance.max() < 1e-5  # 6 decimals of an angle

    step, search_range = float(general["rlnOffsetStep"]), float(general["rlnOffsetRange"])
    shifts = oversample_translations(translation_grid_2d(search_range, step, perturbation), step).reshape(
        -1, 2
    )
    offsets = np.column_stack([found.rlnOriginXAngst, found.rlnOriginYAngst])
    assert cKDTree(shifts).query(offsets)[0].max() < 1e-4

    if group == "D2":
        # the asymmetric unit has as many directions as RELION's, and each is a mate of one of them
        directions = tables["sampling_directions"]
        grid = SamplingGrid(order, group)
        assert len(directions) == grid.n_directions
        views = matrices(directions.rlnAngleRot, directions.rlnAngleTilt, 0.0)[:, 2]
        mates = (views @ point_group(group).operators).reshape(-1, 3)
        assert cKDTree(mates).query(grid.direction_vectors)[0].max() < 1e-6
