"""Detector MTF curves."""

import pytest

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.mtf import read_mtf


def test_curve_is_read_whatever_its_block_is_called(tmp_path):
    path = tmp_path / "mtf.star"
    path.write_text(
        "data_falcon\nloop_\n_rlnMtfValue #1\n_rlnResolutionInversePixel #2\n1 0\n0.5 0.25\n0.3 0.5\n"
    )
    frequency, value = read_mtf(path)
    assert frequency.tolist() == [0, 0.25, 0.5]
    assert value.tolist() == [1, 0.5, 0.3]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data_\nloop_\n_rlnMtfValue\n1\n", "lacks rlnResolutionInversePixel"),
        ("data_\n_rlnMtfValue 1\n", "lacks rlnResolutionInversePixel and rlnMtfValue"),
        ("data_\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 one\n1 two\n", "no numbers"),
        ("data_\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0 1\n", "two points"),
        ("data_\nloop_\n_rlnResolutionInversePixel\n_rlnMtfValue\n0.5 1\n0 1\n", "rising"),
    ],
)
def test_what_is_no_curve_is_named(tmp_path, text, sentence):
    path = tmp_path / "mtf.star"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence) as error:
        read_mtf(path)
    assert str(path) in str(error.value)


@pytest.mark.filterwarnings("ignore::cryorefine.errors.UserWarningMessage")
def test_published_curves_fall_from_about_one(shared):
    files = sorted((shared / "data" / "mtf").rglob("*.star"))
    assert files
    for file in files:
        frequency, value = read_mtf(file)
        assert frequency[0] == 0, file
        assert value[0] == pytest.approx(1, abs=0.06), file
        assert value[-1] < 0.7 * value[0], file


def test_footer_of_a_mailing_list_warns(shared):
    with pytest.warns(UserWarningMessage, match="mtf_f3_200"):
        read_mtf(shared / "data" / "mtf" / "mtf_f3_200_linear.star")
