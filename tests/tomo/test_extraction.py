"""Particles cut out of tilt images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryorefine.ctf.aberrations import odd_phase
from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader
from cryorefine.io.mrc import write_stack
from cryorefine.io.tomograms import read_tomograms
from cryorefine.tomo.extraction import Transfer, extract, soft_circle, stack_of, window
from cryorefine.tomo.geometry import image_rotations, project
from cryorefine.tomo.particles import read_subtomograms
from cryorefine.tomo.pseudo_volume import levelled_spectra, pseudo_volume
from cryorefine.tomo.tilt_images import TiltImages

ALL = np.arange(5)


def centroid(images):
    """Centre of mass (x, y) of each image."""
    x = np.arange(images.shape[-1])
    weight = images.sum(axis=(1, 2))
    return (
        np.stack([(images * x).sum(axis=(1, 2)), (images * x[:, None]).sum(axis=(1, 2))], 1) / weight[:, None]
    )


def dots(project_of_dots, number, box, binning, premultiply=False):
    particles = read_subtomograms(project_of_dots.particles, read_tomograms(project_of_dots.tomograms))
    series, rows = next(particles.by_tomogram())
    centres, depths = project(series, particles.positions(series, rows))
    shape = window(box, None, binning)
    transfer = Transfer(series, None, box, series.pixel_size * shape.binning)
    spectra, gain = extract(
        TiltImages(series), shape, transfer, centres[number], depths[number], ALL, premultiply=premultiply
    )
    return series, shape, spectra, gain


def test_stacks_are_those_of_relion(sim_hiv: Path):
    """The eight stacks that RELION 5 wrote, at a box of 96 px cropped to 64."""
    particles = read_subtomograms(sim_hiv / "particles.star", read_tomograms(sim_hiv / "tomograms.star"))
    reader = ImageReader(sim_hiv / "relion5/stacks")
    shape, circle = window(96, 64, 1), soft_circle(96, 64)
    compared = 0
    for series, rows in particles.by_tomogram():
        images, transfer = TiltImages(series), Transfer(series, None, 96, series.pixel_size)
        centres, depths = project(series, particles.positions(series, rows))
        for i, name in enumerate(particles.names[rows]):
            if not (reader.root / f"{name}_stack2d.mrcs").exists():
                continue
            theirs = reader.read_stack(f"{name}_stack2d.mrcs")
            spectra, _ = extract(images, shape, transfer, centres[i], depths[i], np.arange(41))
            ours = stack_of(spectra, shape, circle)
            difference = np.sqrt(np.mean((ours - theirs) ** 2, axis=(1, 2)))
            # What is left is the rounding to 16 bits.
            assert (difference < 1e-3 * theirs.std(axis=(1, 2))).all()
            compared += 1
    assert compared == 8


@pytest.mark.parametrize("binning", [1, 1.5, 2])
def test_a_particle_lies_at_the_middle_of_its_box_whatever_the_binning(project_of_dots, binning):
    for number in range(4):
        _, shape, spectra, _ = dots(project_of_dots, number, 24, binning)
        stack = stack_of(spectra, shape, None)
        # No other dot comes as near as this.
        assert np.abs(centroid(stack[:, 9:16, 9:16]) - 3).max() < 0.02
        # A dot of 3 px and height 1, white, and divided by the binning as the voxels of a volume would be.
        peak = stack[:, 12, 12]
        assert np.allclose(peak, 1 / shape.binning, rtol=0.02)


def test_the_binning_is_what_whole_pixels_make_of_it():
    shape = window(64, 32, 1.7)
    assert shape.unbinned == 109
    assert shape.binning == 109 / 64
    assert shape.radius == 109 / 64 * 16


def test_beyond_an_edge_its_pixel_is_repeated_and_16_bits_are_read_exactly(tmp_path, rng, project_of_dots):
    values = rng.normal(size=(5, 140, 160)) * np.logspace(-7, 3, 160)
    write_stack(tmp_path / "TS_1.mrcs", values, 2.0, half_precision=True)
    series = read_tomograms(project_of_dots.tomograms)["TS_1"]
    corners = np.array([[-3, 5], [150, 130], [20, 30]])
    cut = TiltImages(series).squares(np.array([0, 4, 2]), corners, 16)
    stored = values.astype(np.float16).astype(np.float32)
    for square, tilt, (x, y) in zip(cut, (0, 4, 2), corners, strict=True):
        rows, columns = np.clip(np.arange(y, y + 16), 0, 139), np.clip(np.arange(x, x + 16), 0, 159)
        assert np.array_equal(square, stored[tilt][np.ix_(rows, columns)])


def test_an_image_with_nan_is_named(tmp_path, project_of_dots):
    images = project_of_dots.images.astype(np.float32)
    images[2, 70, 80] = np.nan
    np.memmap(tmp_path / "TS_1.mrcs", dtype="<f2", mode="r+", offset=1024, shape=images.shape)[:] = images
    with pytest.raises(UserError, match=r"3@TS_1\.mrcs holds NaN"):
        dots(project_of_dots, 0, 24, 1)


def test_missing_and_unequal_tilt_images_are_named(tmp_path, project_of_dots):
    series = read_tomograms(project_of_dots.tomograms)["TS_1"]
    gone = replace(series, image_names=(*series.image_names[:4], "gone.mrc"))
    with pytest.raises(UserError, match=r"tilt image gone\.mrc of TS_1 is missing"):
        TiltImages(gone)
    write_stack(tmp_path / "small.mrcs", np.ones((1, 20, 30)), 2.0)
    with pytest.raises(UserError, match="has 30 x 20 pixels but the first one 160 x 140"):
        TiltImages(replace(series, image_names=(*series.image_names[:4], "1@small.mrcs")))
    with pytest.raises(UserError, match="asks for image 9, but the stack holds 5"):
        TiltImages(replace(series, image_names=("9@TS_1.mrcs",)))


def test_images_are_multiplied_by_ctf_and_dose(project_of_dots):
    _, _, plain, none = dots(project_of_dots, 1, 24, 1)
    _, _, multiplied, gain = dots(project_of_dots, 1, 24, 1, premultiply=True)
    assert none is None
    assert np.allclose(multiplied, plain * gain.reshape(5, 24, 13), atol=1e-5)
    # The CTF is Q at the origin and no dose damps it there.
    assert np.allclose(gain[:, 0], 0.1, atol=1e-6)


def test_beam_tilt_is_undone(project_of_dots):
    series = read_tomograms(project_of_dots.tomograms)["TS_1"]
    optics = pd.Series({"rlnBeamTiltX": 1.0, "rlnBeamTiltY": -0.5, "rlnOddZernike": "[0,0]"})
    transfer = Transfer(series, optics, 24, 2.0)
    phase = odd_phase([0, 0], 1.0, -0.5, 300.0, 2.7, transfer.x, transfer.y)
    assert transfer.odd.shape == (24, 13)
    assert np.allclose(transfer.odd.ravel(), np.exp(-1j * phase), atol=1e-6)


def test_a_slice_of_a_pseudo_volume_is_the_image_that_was_laid_into_it(project_of_dots):
    """The transform of the volume's projection along the beam is that of the image times the spacing."""
    _, shape, spectra, gain = dots(project_of_dots, 1, 32, 1, premultiply=True)
    circle = soft_circle(32, 32)
    images = levelled_spectra(spectra, shape, circle)
    volume = pseudo_volume(images[:1], gain[:1], np.ones_like(gain[:1]), np.eye(3)[None], shape)
    projection = np.fft.rfft2(volume.data.sum(axis=0))
    image = np.fft.rfft2(stack_of(spectra, shape, circle)[0])
    ky = np.fft.fftfreq(32, 1 / 32)
    inside = (np.hypot(ky[:, None], np.arange(17)) < 15.5) & (np.abs(ky)[:, None] < 15.5)
    # RELION's transforms of volumes are divided by the square root of the number of voxels.
    assert np.allclose(projection[inside], np.sqrt(32) * image[inside], atol=1e-3)
    weights, multiplicity = np.split(volume.weights, 2)
    assert np.allclose(weights[0][inside], gain[0].reshape(32, 17)[inside] ** 2, atol=1e-6)
    assert set(np.unique(multiplicity[0][inside])) == {1.0}
    assert not multiplicity[1:].any()


def test_the_dots_of_all_tilts_meet_in_the_pseudo_volume(project_of_dots):
    series, shape, spectra, _ = dots(project_of_dots, 2, 32, 1)
    images = levelled_spectra(spectra, shape, soft_circle(32, 32))
    rotations = image_rotations(series, np.eye(3)[None])[0]
    dose = np.ones((5, 32 * 17), np.float32)
    volume = pseudo_volume(images, None, dose, rotations, shape).data
    assert np.unravel_index(np.argmax(volume), volume.shape) == (16, 16, 16)


def test_cropping_a_pseudo_volume_keeps_the_dot_and_its_shape(project_of_dots):
    series, shape, spectra, _ = dots(project_of_dots, 2, 48, 1)
    small = replace(shape, crop=32)
    rotations = image_rotations(series, np.eye(3)[None])[0]
    dose = np.ones((5, 48 * 25), np.float32)
    circle = soft_circle(48, 32)
    whole, cut = (
        pseudo_volume(levelled_spectra(spectra, s, circle), None, dose, rotations, s).data
        for s in (shape, small)
    )
    middle = cut[10:22, 10:22, 10:22], whole[18:30, 18:30, 18:30]
    assert np.corrcoef(*(part.ravel() for part in middle))[0, 1] > 0.99
