"""Windows of a box: their transforms are those of the whole box, without the work."""

import numpy as np
import pytest

from cryorefine.maps import filters, fourier, shells
from cryorefine.maps.windows import filtered_window, window_sums


def in_box(window, corner, size):
    box = np.zeros((size,) * 3, dtype=np.float32)
    box[tuple(slice(c, c + n) for c, n in zip(corner, window.shape, strict=True))] = window
    return box


@pytest.mark.parametrize(("size", "count"), [(32, 17), (32, 9), (33, 17)])
def test_sums_of_windows_are_those_of_the_whole_box(rng, size, count):
    windows = rng.standard_normal((2, 11, 13, 12)).astype(np.float32)
    mask = rng.random((11, 13, 12)).astype(np.float32)
    spectra = [fourier.forward(in_box(window * mask, (5, 3, 7), size)) for window in windows]
    expected = shells.cross_sums(*spectra)[:, :count]
    np.testing.assert_allclose(
        window_sums(windows, mask, size, count), expected, rtol=1e-4, atol=1e-5 * expected.max()
    )


@pytest.mark.parametrize("count", [29, 17, 8])
def test_a_filtered_window_is_part_of_the_filtered_map(rng, count):
    size = 32
    volume = rng.standard_normal((size,) * 3).astype(np.float32)
    gain = rng.random(len(shells.radius_table(size))) * (shells.shell_table(size) < count)
    window = (slice(0, 9), slice(20, 32), slice(5, 15))
    ours = filtered_window(fourier.forward(volume), gain, count, window)
    np.testing.assert_allclose(ours, filters.apply_filter(volume, gain)[window], atol=1e-6)


@pytest.mark.parametrize("count", [29, 17, 8])
def test_a_spectrum_may_give_its_memory_for_the_filtered_map(rng, count):
    size = 32
    spectrum = fourier.forward(rng.standard_normal((size,) * 3).astype(np.float32))
    gain = rng.random(len(shells.radius_table(size))) * (shells.shell_table(size) < count)
    window = (slice(0, size), slice(3, 32), slice(5, 15))
    expected = filtered_window(spectrum, gain, count, window)
    ours = filtered_window(spectrum, gain, count, window, overwrite=True)
    np.testing.assert_array_equal(ours, expected)


def test_one_window_with_itself_gives_its_power(rng):
    window = rng.standard_normal((9, 9, 9))
    product, first, second = window_sums([window], np.ones_like(window), 24, 13)
    np.testing.assert_allclose(product, first)
    np.testing.assert_allclose(second, first)


def test_threads_change_nothing(rng):
    windows = rng.standard_normal((2, 20, 20, 20)).astype(np.float32)
    sums = [window_sums(windows, windows[0] > 0, 32, 17, threads) for threads in (1, 4)]
    assert (sums[0] == sums[1]).all()
