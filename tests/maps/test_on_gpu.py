"""Maps on a GPU come to what they do on the processor; on the stand-in for CuPy where there is no GPU."""

import numpy as np
import pytest

from cryorefine.compute.array_module import to_host
from cryorefine.compute.place import Place, shortage
from cryorefine.maps import density, filters, fourier, fsc, masks, on_gpu, shells, solvent, windows
from cryorefine.maps.local_resolution import LocalFsc, LocalResolution, Sphere, sampling_points
from cryorefine.maps.mask_recipe import MaskRecipe, mask_from_recipe
from cryorefine.maps.randomise import randomise_phases
from cryorefine.maps.sharpen import Amplitudes, filtered_map

SIZES = pytest.mark.parametrize("size", [24, 15])


def blob(rng, size, ndim=3):
    index = np.indices((size,) * ndim) - size / 2 + 0.5
    signal = np.exp(-(index**2).sum(axis=0) / size)
    return (signal + 0.1 * rng.normal(size=signal.shape)).astype(np.float32)


@SIZES
@pytest.mark.parametrize("ndim", [2, 3])
def test_transforms(cupy, rng, size, ndim):
    volume = blob(rng, size, ndim)
    there = cupy.asarray(volume)
    spectrum = fourier.forward(volume)
    np.testing.assert_allclose(fourier.forward(there).get(), spectrum, atol=1e-6)
    back = fourier.inverse(cupy.asarray(spectrum), size)
    np.testing.assert_allclose(back.get(), volume, atol=1e-6)
    for small in (10, size):
        cropped = fourier.forward_cropped(volume, small)
        np.testing.assert_allclose(fourier.forward_cropped(there, small).get(), cropped, atol=1e-6)
        large = fourier.inverse_padded(cropped, 28)
        np.testing.assert_allclose(fourier.inverse_padded(cupy.asarray(cropped), 28).get(), large, atol=1e-6)
    filtered = filters.lowpass(volume, 1.0, 4.0)
    np.testing.assert_allclose(filters.lowpass(there, 1.0, 4.0).get(), filtered, atol=1e-6)
    assert fourier.forward_cropped(there, 8, precision="f8").dtype == np.complex128


@SIZES
@pytest.mark.parametrize("slab", [1, 2**24], ids=["plane by plane", "at once"])
def test_sums_over_shells(cupy, rng, monkeypatch, size, slab):
    monkeypatch.setattr(on_gpu, "VOXELS", slab)
    a, b = (fourier.forward(blob(rng, size)) for _ in range(2))
    there = cupy.asarray(a), cupy.asarray(b)
    for corners in (False, True):
        expected = shells.cross_sums(a, b, corners=corners)
        np.testing.assert_allclose(
            shells.cross_sums(*there, corners=corners), expected, rtol=2e-6, atol=1e-12
        )
    np.testing.assert_allclose(fsc.fsc_of_spectra(*there), fsc.fsc_of_spectra(a, b), atol=1e-6)
    for one, other in zip(shells.radial_sums(there[0]), shells.radial_sums(a), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    gain = rng.random(len(shells.radius_table(size)))
    expected = shells.apply_gain(a.copy(), gain)
    np.testing.assert_allclose(shells.apply_gain(there[0], gain).get(), expected, rtol=1e-6, atol=1e-9)


def test_a_sum_does_not_depend_on_the_order(cupy, rng):
    values = rng.normal(size=10000) * 10.0 ** rng.uniform(-8, 0, 10000)
    index = rng.integers(0, 5, 10000)
    order = rng.permutation(10000)
    sums = [
        on_gpu.sum_by_bin(cupy.asarray(index[o]), cupy.asarray(values[o]), 4)
        for o in (np.arange(10000), order)
    ]
    np.testing.assert_array_equal(*sums)
    np.testing.assert_allclose(sums[0], np.bincount(index, values)[:4], rtol=1e-12)
    assert (on_gpu.sum_by_bin(cupy.asarray(index), cupy.zeros(10000, np.float32), 4) == 0).all()


@SIZES
def test_windows(cupy, rng, size):
    volumes = [blob(rng, size) for _ in range(2)]
    window = (slice(2, 12), slice(0, 13), slice(4, 11))
    mask = rng.random((10, 13, 7)).astype(np.float32)
    for count in (5, size // 2 + 1):
        expected = windows.window_sums([v[window] for v in volumes], mask, size, count)
        there = [cupy.asarray(v)[window] for v in volumes]
        found = windows.window_sums(there, cupy.asarray(mask), size, count)
        np.testing.assert_allclose(found, expected, rtol=3e-5, atol=1e-12)
        spectrum = fourier.forward(volumes[0])
        gain = rng.random(len(shells.radius_table(size))) * (shells.shell_table(size) < count)
        expected = windows.filtered_window(spectrum, gain, count, window)
        found = windows.filtered_window(cupy.asarray(spectrum), gain, count, window)
        np.testing.assert_allclose(found.get(), expected, atol=1e-6)
    gain = np.ones(len(shells.radius_table(size)))
    np.testing.assert_allclose(filtered_map(cupy.asarray(spectrum), gain).get(), volumes[0], atol=1e-6)
    amplitudes = [Amplitudes(s).guinier(gain) for s in (spectrum, cupy.asarray(spectrum))]
    np.testing.assert_allclose(*amplitudes, rtol=1e-6)


@pytest.mark.parametrize("drawn", [False, True], ids=["averaged", "drawn"])
@SIZES
def test_solvent_corrected_curves(cupy, rng, size, drawn):
    first = blob(rng, size)
    second = first + 0.05 * rng.normal(size=first.shape).astype(np.float32)
    mask = masks.soft_sphere((size,) * 3, size / 4, 3.0)
    halves = solvent.HalfMaps(first, second)
    moved = halves.moved(cupy.asarray)
    there = solvent.HalfMaps(cupy.asarray(first), cupy.asarray(second))
    for each in (moved, there):
        np.testing.assert_allclose(each.unmasked, halves.unmasked, atol=1e-6)
        here, found = (
            solvent.solvent_corrected_fsc(h, m, rng=np.random.default_rng(1) if drawn else None)
            for h, m in ((halves, mask), (each, cupy.asarray(mask)))
        )
        np.testing.assert_allclose(found.corrected, here.corrected, atol=1e-5)
        np.testing.assert_allclose(found.masked_power, here.masked_power, rtol=1e-5)
    np.testing.assert_allclose(there.average().get(), halves.average(), atol=1e-7)


@SIZES
def test_random_phases_leave_a_real_map(cupy, rng, size):
    spectrum = fourier.forward(blob(rng, size))
    here, there = (
        randomise_phases(s, 4, size, np.random.default_rng(3)) for s in (spectrum, cupy.asarray(spectrum))
    )
    np.testing.assert_allclose(there.get(), here, atol=1e-7)
    np.testing.assert_allclose(abs(here), abs(spectrum), rtol=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        MaskRecipe(0.3, extend=2.5, soft_edge=3.0),
        MaskRecipe(0.3, extend=-1, soft_edge=0, invert=True, combination="or-not"),
        MaskRecipe(0.2, largest_islands=2, fill_holes=True, soft_edge=4, helix_length=0.5),
    ],
)
def test_masks(cupy, rng, recipe):
    volume, second = blob(rng, 24), blob(rng, 24)
    expected = mask_from_recipe(volume, recipe, second)
    found = mask_from_recipe(cupy.asarray(volume), recipe, cupy.asarray(second))
    np.testing.assert_allclose(found.get(), expected, atol=1e-6)
    assert 0 < expected.mean() < 1
    binary = volume > 0.3
    assert masks.touches_box(cupy.asarray(binary)) == masks.touches_box(binary)
    assert density.suggest_threshold(cupy.asarray(volume)) == density.suggest_threshold(volume)


def local(first, second, size):
    halves = solvent.HalfMaps(first, second)
    curves = LocalFsc(halves, Sphere(4, 3, 3), 4)
    return LocalResolution(curves, 1.0, 20.0, halves.average(), 6)


@pytest.mark.parametrize("places", [3, None], ids=["memory runs out", "whole"])
def test_local_resolution(cupy, rng, monkeypatch, places):
    size = 24
    first = blob(rng, size)
    second = first + 0.2 * rng.normal(size=first.shape).astype(np.float32)
    centres = sampling_points(size, Sphere(4, 3, 3))
    expected = local(first, second, size)
    list(expected.visit(centres))
    found = local(cupy.asarray(first), cupy.asarray(second), size)
    if places is not None:
        measure = found._measure

        def limited(centre):
            if found._average.__class__ is not np.ndarray and len(found.points) == places:
                raise MemoryError
            return measure(centre)

        monkeypatch.setattr(found, "_measure", limited)
    assert len(list(found.visit(centres))) == len(centres)
    assert found.left_gpu == (places is not None)
    for a, b in zip(expected.maps(), found.maps(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    assert 0 < np.ptp([point.resolution for point in found.points])


def test_gpus_share_the_places_of_a_local_resolution(two_gpus, rng):
    size = 24
    first = blob(rng, size)
    second = first + 0.2 * rng.normal(size=first.shape).astype(np.float32)
    centres = sampling_points(size, Sphere(4, 3, 3))
    expected = local(two_gpus.asarray(first), two_gpus.asarray(second), size)
    list(expected.visit(centres))
    found = local(two_gpus.asarray(first), two_gpus.asarray(second), size)
    found.also_on(Place("gpu:1").put)
    measured = [[], []]
    for mine, each in zip(measured, (found, *found._others), strict=True):
        each._measure = lambda centre, each=each, mine=mine: (
            mine.append(centre) or LocalResolution._measure(each, centre)
        )
    assert [point.centre for point in found.visit(centres)] == centres
    assert sorted(measured[0] + measured[1]) == sorted(centres)
    assert measured[1]
    for a, b in zip(expected.maps(), found.maps(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gpu_without_room_does_not_share_a_local_resolution(two_gpus, rng):
    first = blob(rng, 24)
    found = local(two_gpus.asarray(first), two_gpus.asarray(first), 24)
    two_gpus.largest = 1000
    found.also_on(Place("gpu:1").put)
    assert found._others == []


def test_what_does_not_fit_is_done_on_the_processor(stand_in, rng):
    first, second = blob(rng, 16), blob(rng, 16)
    stand_in.largest = 5000
    place = Place("gpu:0")
    halves = place.do(solvent.HalfMaps, first, second, 1)
    assert isinstance(halves.spectra[0], np.ndarray)
    assert not place.on_gpu
    assert [("memory" in sentence) for sentence in place.notices] == [True]
    np.testing.assert_array_equal(halves.unmasked, solvent.HalfMaps(first, second, 1).unmasked)


def test_half_maps_leave_the_gpu_when_a_later_step_does_not_fit(stand_in, rng):
    first, second = blob(rng, 16), blob(rng, 16)
    place = Place("gpu:0")
    halves = place.do(solvent.HalfMaps, first, second, 1)
    stand_in.largest = 5000
    mask = masks.soft_sphere((16,) * 3, 5, 3.0)
    found = place.do(solvent.solvent_corrected_fsc, halves, mask, threads=1)
    expected = solvent.solvent_corrected_fsc(solvent.HalfMaps(first, second, 1), mask, threads=1)
    np.testing.assert_allclose(found.corrected, expected.corrected, atol=1e-5)
    assert not place.on_gpu


def test_slabs_are_halved_before_the_gpu_is_left(stand_in, rng):
    spectrum = fourier.forward(blob(rng, 16))
    there = stand_in.asarray(spectrum)
    stand_in.largest = 8 * 16 * 9 * 5  # five planes of the sixteen in double precision
    np.testing.assert_allclose(
        shells.cross_sums(there, there), shells.cross_sums(spectrum, spectrum), rtol=1e-6
    )


def test_a_map_in_a_file_is_brought_in_the_order_of_bytes_of_the_gpu(stand_in, rng):
    volume = blob(rng, 8)
    there = Place("gpu:0").put(volume.astype(">f4"))
    np.testing.assert_array_equal(to_host(there), volume)


def test_libraries_that_are_short_of_memory_say_so_in_one_way():
    for words in ("CUFFT_ALLOC_FAILED", "cudaErrorMemoryAllocation: out of memory"):
        with pytest.raises(MemoryError), shortage():
            raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="ILLEGAL"), shortage():
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")
