"""Particle images are found by reference."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader, parse_reference
from cryorefine.io.mrc import write_map, write_stack


@pytest.fixture
def stacks(tmp_path, rng):
    """Three stacks of 5 images, 6 x 6 px, 3.54 A/px; one of them in half precision."""
    images = rng.integers(-50, 50, size=(3, 5, 6, 6)).astype(np.float32)
    (tmp_path / "sub").mkdir()
    for i in range(3):
        write_stack(tmp_path / "sub" / f"{i}.mrcs", images[i], 3.54, half_precision=i == 1)
    return images


def test_references_are_counted_from_one_and_keep_their_order(tmp_path, stacks):
    reader = ImageReader(tmp_path)
    order = [(2, 4), (0, 0), (1, 3), (0, 4), (2, 0)]
    images = reader.read([f"{section + 1:06d}@sub/{stack}.mrcs" for stack, section in order])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, [stacks[place] for place in order])


def test_absolute_paths_and_format_suffixes_are_understood(tmp_path, stacks):
    reader = ImageReader("/")
    np.testing.assert_array_equal(reader.read([f"2@{tmp_path}/sub/0.mrcs:mrcs"])[0], stacks[0, 1])
    assert parse_reference("000012@a/b.ctf:mrc") == (12, "a/b.ctf")
    assert parse_reference("a/b.mrc") == (None, "a/b.mrc")


def test_shape_count_and_pixel_size_come_from_the_header(tmp_path, stacks):
    reader = ImageReader(tmp_path)
    assert reader.shape("1@sub/0.mrcs") == (6, 6)
    assert reader.count("1@sub/0.mrcs") == 5
    assert reader.pixel_size("1@sub/0.mrcs") == 3.54


def test_file_without_number_is_one_image_or_a_whole_stack(tmp_path, stacks):
    reader = ImageReader(tmp_path)
    write_map(tmp_path / "one.mrc", stacks[0, 0], 1)
    np.testing.assert_array_equal(reader.read(["one.mrc"])[0], stacks[0, 0])
    np.testing.assert_array_equal(reader.read_stack("sub/1.mrcs"), stacks[1])
    with pytest.raises(UserError, match="holds 5 images"):
        reader.read(["sub/1.mrcs"])


def test_few_stacks_stay_open_and_all_are_read(tmp_path, stacks):
    reader = ImageReader(tmp_path, max_open=1)
    references = [f"{section + 1}@sub/{stack}.mrcs" for section in range(5) for stack in range(3)]
    np.testing.assert_array_equal(reader.read(references), stacks.transpose(1, 0, 2, 3).reshape(-1, 6, 6))
    assert len(reader._open) == 1


def test_threads_share_a_reader(tmp_path, stacks):
    reader = ImageReader(tmp_path, max_open=1)
    with ThreadPoolExecutor(4) as pool:
        reads = list(pool.map(lambda i: reader.read([f"{i % 5 + 1}@sub/{i % 3}.mrcs"])[0], range(300)))
    np.testing.assert_array_equal(reads, [stacks[i % 3, i % 5] for i in range(300)])


def test_reader_travels_to_a_worker_in_another_folder(tmp_path, stacks, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = ImageReader(".")
    reader.read(["1@sub/0.mrcs"])
    content = pickle.dumps(reader)
    assert len(content) < 1000
    monkeypatch.chdir(tmp_path / "sub")
    np.testing.assert_array_equal(pickle.loads(content).read(["1@sub/0.mrcs"])[0], stacks[0, 0])


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("6@sub/0.mrcs", "image 6 but the stack holds 5"),
        ("0@sub/0.mrcs", "image 0 but the stack holds 5"),
        ("x@sub/0.mrcs", "'x' before the @"),
        ("1@sub/9.mrcs", "no file"),
        ("1@big.mrcs", "8 x 8 pixels but 1@sub/0.mrcs has 6 x 6"),
        ("2@nan.mrcs", "NaN"),
    ],
)
def test_wrong_reference_is_named(tmp_path, stacks, reference, sentence):
    write_stack(tmp_path / "big.mrcs", np.zeros((1, 8, 8)), 1)
    bad = stacks[0].copy()
    bad[1, 2, 2] = np.nan
    write_stack(tmp_path / "nan.mrcs", bad, 1)
    with pytest.raises(UserError, match=sentence) as error:
        ImageReader(tmp_path).read(["1@sub/0.mrcs", reference])
    assert reference in str(error.value)


def test_no_references_give_no_images():
    assert ImageReader().read([]).shape[0] == 0
