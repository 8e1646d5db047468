"""Maps and stacks in MRC files."""

import subprocess

import mrcfile
import numpy as np
import pytest

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.mrc import read_layout, read_map, write_map, write_stack


@pytest.fixture
def volume(rng):
    return rng.normal(size=(4, 6, 8)).astype(np.float32)


def test_map_reads_back_as_written(tmp_path, volume):
    write_map(tmp_path / "a.mrc", volume, 1.06)
    back = read_map(tmp_path / "a.mrc")
    np.testing.assert_array_equal(back.data, volume)
    assert back.data.dtype == np.float32
    assert back.pixel_size == 1.06
    assert back.path == tmp_path / "a.mrc"


def test_a_mapped_map_is_the_same_and_cannot_be_written_to(tmp_path, volume):
    write_map(tmp_path / "a.mrc", volume, 1.06)
    back = read_map(tmp_path / "a.mrc", mapped=True)
    np.testing.assert_array_equal(back.data, volume)
    assert type(back.data) is np.ndarray
    with pytest.raises(ValueError, match="read-only"):
        back.data[0, 0, 0] = 1


def test_header_is_that_of_a_valid_volume(tmp_path, volume):
    write_map(tmp_path / "a.mrc", volume.astype(np.float64)[:, :, ::-1], 3.54)
    assert mrcfile.validate(tmp_path / "a.mrc")
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        header = mrc.header
        assert (header.mode, header.ispg) == (2, 1)
        assert (header.nx, header.ny, header.nz, header.mz) == (8, 6, 4, 4)
        assert (header.mapc, header.mapr, header.maps) == (1, 2, 3)
        assert header.origin.tolist() == (0, 0, 0)
        assert header.nxstart == 0
        np.testing.assert_allclose([header.dmin, header.dmax], [volume.min(), volume.max()])
        np.testing.assert_allclose([header.dmean, header.rms], [volume.mean(), volume.std()], rtol=1e-5)


def test_same_map_gives_the_same_bytes(tmp_path, volume):
    for name in ("a.mrc", "b.mrc"):
        write_map(tmp_path / name, volume, 1)
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()


def test_image_is_a_map_of_one_section(tmp_path, volume):
    write_map(tmp_path / "a.mrc", volume[0], 2)
    np.testing.assert_array_equal(read_map(tmp_path / "a.mrc").data, volume[:1])


@pytest.mark.parametrize("half_precision", [False, True])
def test_stack_is_a_stack_of_images(tmp_path, volume, half_precision):
    write_stack(tmp_path / "a.mrcs", 1000 * volume, 3.54, half_precision)
    # The validator's own sums overflow in half precision.
    assert half_precision or mrcfile.validate(tmp_path / "a.mrcs")
    with mrcfile.open(tmp_path / "a.mrcs") as mrc:
        assert mrc.is_image_stack()
        assert mrc.header.mode == (12 if half_precision else 2)
        np.testing.assert_allclose(mrc.data, 1000 * volume, rtol=1e-3)
        np.testing.assert_allclose(mrc.header.rms, 1000 * volume.std(), rtol=1e-3)
    assert read_layout(tmp_path / "a.mrcs").pixel_size == 3.54


def test_value_too_large_for_half_precision_is_refused(tmp_path, volume):
    with pytest.raises(UserError, match="65504"):
        write_stack(tmp_path / "a.mrcs", volume * 1e6, 1, half_precision=True)


def write_raw(path, array, order, mode, extended=b"", stamp=True, axes=(1, 2, 3), pixel_size=2.0):
    header = np.zeros(256, dtype=order + "i4")
    header[:4] = [array.shape[2], array.shape[1], array.shape[0], mode]
    header[7:10] = header[:3]
    header[10:13] = (header[:3] * pixel_size).astype(order + "f4").view(order + "i4")
    header[16:19] = axes
    header[23] = len(extended)
    content = bytearray(header.tobytes())
    if stamp:
        content[208:212] = b"MAP "
    path.write_bytes(bytes(content) + extended + array.tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
@pytest.mark.parametrize("stamp", [True, False])
def test_modes_byte_orders_and_extended_headers(tmp_path, rng, order, mode, kind, stamp):
    array = rng.integers(0 if kind == "u2" else -100, 100, size=(3, 4, 5)).astype(order + kind)
    write_raw(tmp_path / "a.mrc", array, order, mode, extended=b"x" * 80, stamp=stamp)
    back = read_map(tmp_path / "a.mrc")
    np.testing.assert_array_equal(back.data, array.astype(np.float32))
    assert back.pixel_size == 2


def test_axes_are_put_in_order(tmp_path, volume):
    # Columns along z, rows along x, sections along y.
    write_raw(tmp_path / "a.mrc", np.ascontiguousarray(volume.transpose(1, 2, 0)), "<", 2, axes=(3, 1, 2))
    np.testing.assert_array_equal(read_map(tmp_path / "a.mrc").data, volume)


@pytest.mark.parametrize("size", [0.885, 1.06, 1.244, 3.54, 9.3, 13.7, 1.0605731])
def test_pixel_size_is_the_one_written_not_its_rounding(tmp_path, size):
    write_map(tmp_path / "a.mrc", np.zeros((64, 64, 64)), size)
    assert read_map(tmp_path / "a.mrc").pixel_size == size


def test_map_without_pixel_size_asks_for_it(tmp_path, volume):
    write_raw(tmp_path / "a.mrc", volume, "<", 2, pixel_size=0)
    with pytest.raises(UserError, match="no pixel size"):
        read_map(tmp_path / "a.mrc")
    assert read_map(tmp_path / "a.mrc", pixel_size=1.5).pixel_size == 1.5


def test_oblong_voxels_warn(tmp_path, volume):
    write_map(tmp_path / "a.mrc", volume, 1)
    with mrcfile.open(tmp_path / "a.mrc", mode="r+") as mrc:
        mrc.voxel_size = (1, 1, 2)
    with pytest.warns(UserWarningMessage, match="1.0 x 1.0 x 2.0"):
        read_map(tmp_path / "a.mrc")


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
def test_broken_files_end_in_a_sentence(tmp_path, volume):
    write_map(tmp_path / "good.mrc", volume, 1)
    content = (tmp_path / "good.mrc").read_bytes()
    (tmp_path / "cut.mrc").write_bytes(content[:-1])
    (tmp_path / "head.mrc").write_bytes(content[:1000])
    (tmp_path / "text.mrc").write_text("data_particles\n" * 200)
    (tmp_path / "zeros.mrc").write_bytes(bytes(4096))
    (tmp_path / "complex.mrc").write_bytes(content[:12] + b"\4\0\0\0" + content[16:])
    volume[1, 2, 3] = np.nan
    write_map(tmp_path / "nan.mrc", volume, 1)
    for name, sentence in [
        ("none.mrc", "does not exist"),
        ("cut.mrc", "truncated: it holds 1791 bytes of 1792"),
        ("head.mrc", "truncated"),
        ("text.mrc", "not an MRC file"),
        ("zeros.mrc", "not an MRC file"),
        ("complex.mrc", "mode 4"),
        ("nan.mrc", "NaN"),
        (".", "is a folder"),
    ]:
        with pytest.raises(UserError, match=sentence) as error:
            read_map(tmp_path / name)
        assert str(tmp_path) in str(error.value)


def test_relion_reads_our_maps(relion, tmp_path, volume):
    cube = np.zeros((16, 16, 16), dtype=np.float32)
    cube[:4, :6, :8] = volume
    write_map(tmp_path / "a.mrc", cube, 1.06)
    command = [relion("image_handler"), "--i", "a.mrc", "--o", "b.mrc", "--multiply_constant", "2"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    back = read_map(tmp_path / "b.mrc")
    np.testing.assert_allclose(back.data, 2 * cube, rtol=1e-6)
    assert back.pixel_size == 1.06
