"""STAR tables come back as they were written, and RELION reads them."""

import subprocess
import warnings

import numpy as np
import pandas as pd
import pytest

from cryorefine.errors import UserError, UserWarningMessage
from cryorefine.io.star import read_star, write_star


def read_text(tmp_path, text):
    path = tmp_path / "in.star"
    path.write_text(text)
    return read_star(path)


def round_trip(tmp_path, blocks):
    write_star(tmp_path / "out.star", blocks)
    return read_star(tmp_path / "out.star")


def assert_same(first, second):
    assert list(first) == list(second)
    for name, block in first.items():
        if isinstance(block, dict):
            assert block == second[name]
            assert [type(value) for value in block.values()] == [
                type(value) for value in second[name].values()
            ]
        else:
            pd.testing.assert_frame_equal(block, second[name], check_exact=True)


def test_every_number_reads_back_exactly(tmp_path, rng):
    numbers = np.concatenate(
        [rng.normal(size=500) * 10.0 ** rng.integers(-30, 30, 500), [0, 1e-7, -1 / 3, 1e22, 5e-324]]
    )
    table = pd.DataFrame({"rlnAngleRot": numbers, "rlnDefocusU": np.round(rng.normal(size=505) * 1e4, 6)})
    back = round_trip(tmp_path, {"particles": table})["particles"]
    pd.testing.assert_frame_equal(table, back, check_exact=True)


def test_types_survive(tmp_path):
    table = pd.DataFrame(
        {"rlnVoltage": [300.0, 200.0], "rlnOpticsGroup": [1, 2], "rlnMicrographName": ["001", "12"]}
    )
    back = round_trip(tmp_path, {"": table})[""]
    assert back["rlnVoltage"].dtype == np.float64
    assert back["rlnOpticsGroup"].dtype == np.int64
    assert back["rlnMicrographName"].tolist() == ["001", "12"]


WORDS = [
    "",
    " ",
    "two words",
    "tab\there",
    "None",
    "it's",
    'a"b',
    "'",
    '"',
    '"x"',
    '"x" y',
    "'x' y",
    "größe",
    "[1,2]",
]
LIKE_SYNTAX = ["#5", "a#5.mrc", "_rlnX", "data_x", "loop_"]
LIKE_NUMBERS = ["7", "007", "1_000", "nan", "1e5"]


@pytest.mark.parametrize("text", [*WORDS, *LIKE_SYNTAX, *LIKE_NUMBERS])
@pytest.mark.parametrize("label", ["rlnMicrographName", "userColumn"])
def test_text_stays_text_first_in_a_row_and_in_a_list(tmp_path, text, label):
    table = pd.DataFrame({label: [text, text], "rlnOpticsGroup": [1, 2]})
    alone = pd.DataFrame({label: [text]})
    back = round_trip(tmp_path, {"a": table, "b": {label: text}, "c": alone})
    assert back["a"][label].tolist() == [text, text]
    assert back["b"][label] == text
    assert back["c"][label].tolist() == [text]


def test_value_that_star_cannot_hold_is_named(tmp_path):
    with pytest.raises(UserError, match="rlnMicrographName"):
        write_star(tmp_path / "a.star", {"": {"rlnMicrographName": "two\nlines"}})
    with pytest.raises(UserError, match="quotes"):
        write_star(tmp_path / "a.star", {"": {"rlnMicrographName": "both' kinds\" of"}})
    assert list(tmp_path.iterdir()) == []


def test_vectors_and_booleans_are_written_as_relion_does(tmp_path):
    back = round_trip(tmp_path, {"": {"rlnOddZernike": np.array([1e-7, 2, -0.5]), "rlnDoBlush": True}})[""]
    assert back == {"rlnOddZernike": "[1e-07,2,-0.5]", "rlnDoBlush": 1}


def test_tables_stay_tables_with_one_row_and_with_none(tmp_path):
    back = round_trip(
        tmp_path,
        {"one": pd.DataFrame({"a": [1]}), "none": pd.DataFrame({"a": np.zeros(0)}), "list": {"a": 1}},
    )
    assert isinstance(back["one"], pd.DataFrame)
    assert back["none"].shape == (0, 1)
    assert back["list"] == {"a": 1}


def test_names_made_of_digits_are_no_numbers(tmp_path):
    text = "data_\nloop_\n_a\n_b\n_c\n_d\n007 1_000 0 0.5\n012 2_000 10 05.5\n"
    table = read_text(tmp_path, text)[""]
    assert table["a"].tolist() == ["007", "012"]
    assert table["b"].tolist() == ["1_000", "2_000"]
    assert table["c"].tolist() == [0, 10]
    assert table["d"].tolist() == [0.5, 5.5]


def test_numbers_turned_words_late_in_a_column_keep_their_digits(tmp_path, monkeypatch):
    monkeypatch.setattr("cryorefine.io._star_read._CHUNK_ROWS", 2)
    rows = "\n".join(["1.50 1", "2.50 2", "3.50 3", "four 4", "5.50 5.5"])
    table = read_text(tmp_path, f"data_\nloop_\n_userColumn\n_other\n{rows}\n")[""]
    assert table["userColumn"].tolist() == ["1.50", "2.50", "3.50", "four", "5.50"]
    assert table["other"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.5]


def test_comments_carriage_returns_and_mixed_spacing_are_read(tmp_path):
    text = "# top\ndata_x # a block\n\nloop_ \n_a #1 \n_b #2\n# before\n 1\t2 # behind\n# between\n3   4\n"
    assert read_text(tmp_path, text.replace("\n", "\r\n"))["x"].to_dict("list") == {"a": [1, 3], "b": [2, 4]}


def test_row_that_begins_like_a_block_is_a_row(tmp_path):
    table = read_text(tmp_path, "data_\nloop_\n_rlnMicrographName\n_b\ndata_1/a.mrc 1\ndata_2/a.mrc 2\n")[""]
    assert table["rlnMicrographName"].tolist() == ["data_1/a.mrc", "data_2/a.mrc"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no line starts with data_"),
        ("Dear all,\nplease find the data attached.\n", "no line starts with data_"),
        ("data_\nloop_\n_a\n_b\n1 2\n3\n", "line 6: 1 values where the table has 2"),
        ("data_\nloop_\n_a\n_b\n1 2\n3 4 5\n", "line 6: 3 values where the table has 2"),
        ("data_\nloop_\n_a\n_a\n1 2\n", "_a twice"),
        ("data_\nloop_\n1 2\n", "without labels"),
        ("data_\n_a 1\n_a 2\n", "_a twice"),
        ("data_\n_a 1 2\n", "line 2"),
        ("data_\n_a 1\nloop_\n_b\n1\n", "line 3"),
        ("data_x\n_a 1\ndata_x\n_a 2\n", "two blocks named data_x"),
        ("data_\nloop_\n_a\n_b\n1 2\n\nloop_\n_c\n1\n", "line 7"),
    ],
)
def test_broken_files_end_in_a_sentence_with_file_and_place(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_text(tmp_path, text)
    assert "in.star" in str(error.value)


def test_missing_binary_and_folder_are_told_apart(tmp_path):
    (tmp_path / "a.mrc").write_bytes(bytes(2048))
    for name, sentence in [("none.star", "does not exist"), ("a.mrc", "binary"), (".", "is a folder")]:
        with pytest.raises(UserError, match=sentence):
            read_star(tmp_path / name)


def test_mail_footer_behind_a_table_is_left_out_with_a_warning(tmp_path):
    with pytest.warns(UserWarningMessage, match="line 7"):
        blocks = read_text(
            tmp_path, "data_mtf\nloop_\n_a\n_b\n0 1\n\nTo leave the list, click here\nx\ndata_next\n_c 1\n"
        )
    assert blocks["mtf"].shape == (1, 2)
    assert blocks["next"] == {"c": 1}


def test_star_files_of_many_programs_lose_nothing(shared, tmp_path):
    malformed = []
    files = sorted((shared / "data").rglob("*.star"))
    assert files
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarningMessage)
                blocks = read_star(file)
        except UserError:
            malformed.append(file.name)
            continue
        assert_same(blocks, round_trip(tmp_path, blocks))
    assert malformed == ["sample.star", "no_input.star"]


def test_starfile_package_reads_the_same_numbers(betagal, tmp_path):
    starfile = pytest.importorskip("starfile")
    blocks = read_star(betagal / "relion5_refine3d" / "run_data.star")
    write_star(tmp_path / "a.star", blocks)
    theirs = starfile.read(tmp_path / "a.star")
    for name, table in blocks.items():
        for label in table.select_dtypes("number"):
            np.testing.assert_array_equal(
                theirs[name][label].to_numpy(), table[label].to_numpy(), err_msg=label
            )


def test_relion_reads_what_we_write(relion, tmp_path):
    optics = pd.DataFrame(
        {
            "rlnOpticsGroupName": ["a"],
            "rlnOpticsGroup": [1],
            "rlnMtfFileName": [""],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnImagePixelSize": [1.06],
            "rlnImageSize": [64],
            "rlnImageDimensionality": [2],
            "rlnOddZernike": ["[1e-07,2,0.5]"],
        }
    )
    names = ["001", "two words.mrc", "it's", "None", "b.mrc"]
    particles = pd.DataFrame(
        {
            "rlnMicrographName": names,
            "rlnImageName": [f"{i}@a.mrcs" for i in range(1, 6)],
            "rlnOpticsGroup": 1,
            "rlnRandomSubset": [1, 2, 1, 2, 9],
            "rlnAngleRot": [12.3456789012345, 1e-7, -1.5, 0.0, 3.0],
            "mine": list("abcde"),
        }
    )
    write_star(tmp_path / "in.star", {"optics": optics, "particles": particles}, comments=["made by a test"])
    command = [relion("star_handler"), "--i", "in.star", "--o", "out.star", "--select", "rlnRandomSubset"]
    done = subprocess.run(
        [*command, "--maxval", "3"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "4 item(s)" in done.stdout
    back = read_star(tmp_path / "out.star")
    assert_same({"optics": optics}, {"optics": back["optics"]})
    kept = back["particles"]
    assert kept["rlnMicrographName"].tolist() == names[:4]
    assert kept["mine"].tolist() == list("abcd")
    np.testing.assert_allclose(kept["rlnAngleRot"], particles["rlnAngleRot"][:4], rtol=1e-6)


ROWS = "\n".join(f"{i + 1:06d}@m.mrcs {i * 0.37:12.6f} {i:12d} mic{i // 7}.mrc {i}" for i in range(60))
HEADER = "data_particles\n\nloop_\n_rlnImageName #1\n_a #2\n_b #3\n_rlnMicrographName #4\n_userColumn #5\n"
NUMBERS = (
    "0 -0 +5 1. .5 -.5 1e5 1E-5 1e22 1e23 5e-324 1.7976931348623157e308 0.1 123456789.123456 nan inf -inf "
    "9007199254740993 9007199254740993.0 999999999999999999 9223372036854775807 9223372036854775808 "
    "0.30000000000000004 2.2250738585072014e-308 1e400 000.5 1e0005 3e23 7e23 9e23 123456789e-23 7e-23"
).split()
OTHERS = "007 1_000 0x1F abc - . e5 1e 1e+ 12a None [1,2] 1.2.3 --1 1e5.0".split()


def large_and_small(monkeypatch, action):
    """Do something as for small files, and as for large ones, in blocks of a few lines."""
    results = []
    for large in (False, True):
        with monkeypatch.context() as patch:
            if large:
                patch.setattr("cryorefine.io._star_lines._BLOCK", 300)
                patch.setattr("cryorefine.io._star_read.LARGE", 0)
                patch.setattr("cryorefine.io._star_write.LARGE", 0)
                patch.setattr("cryorefine.io._star_bulk._ROWS", 7)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                try:
                    results.append(action())
                except UserError as error:
                    results.append({"": {"error": str(error)}})
            results[-1]["told"] = {"": " ".join(str(each.message) for each in told)}
    return results


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("20 mic2.mrc 20", "20 mic2.mrc 20 # a comment"),
        ("20 mic2.mrc 20", "20 'mic 2.mrc' 20"),
        ("20 mic2.mrc 20", "20 größe.mrc 20"),
        ("20 mic2.mrc 20", "20\tmic2.mrc\t twenty"),
        ("20 mic2.mrc 20", "20 mic2.mrc 020"),
        ("20 mic2.mrc 20", "20 mic2.mrc"),
        ("20 mic2.mrc 20", "20 mic2.mrc 20 1"),
        ("20 mic2.mrc 20", "20 mic2.mrc\x0b20"),
        ("20 mic2.mrc 20\n", "20 mic2.mrc 20\n\n"),
        ("20 mic2.mrc 20\n", "20 mic2.mrc 20\n\nTo leave the list, click here\n"),
        ("20 mic2.mrc 20\n", "20 mic2.mrc 20\n\ndata_next\n_c 1\n"),
        ("20 mic2.mrc 20\n", "20 mic2.mrc 20\n# between\n"),
    ],
)
def test_large_files_are_read_as_small_ones(tmp_path, monkeypatch, change, end):
    text = (HEADER + ROWS).replace(*change)
    assert change == ("", "") or text != HEADER + ROWS
    (tmp_path / "in.star").write_text(text, newline=end)
    small, large = large_and_small(monkeypatch, lambda: read_star(tmp_path / "in.star"))
    assert_same(small, large)


@pytest.mark.parametrize("other", [*OTHERS, ""])
def test_large_files_have_the_numbers_of_small_ones(tmp_path, monkeypatch, rng, other):
    digits = [f"{number:.17g}" for number in rng.normal(size=60) * 10.0 ** rng.integers(-30, 30, 60)]
    words = [*NUMBERS, *digits[: 60 - len(NUMBERS)]]
    mixed, whole = words.copy(), [str(i) for i in range(60)]
    mixed[50] = whole[50] = other or "7"
    rows = "\n".join(" ".join(row) for row in zip(words, digits, mixed, whole, strict=True))
    (tmp_path / "in.star").write_text("data_\nloop_\n_a\n_b\n_c\n_d\n" + rows)
    small, large = large_and_small(monkeypatch, lambda: read_star(tmp_path / "in.star"))
    assert_same(small, large)
    np.testing.assert_array_equal(np.signbit(small[""]["a"]), np.signbit(large[""]["a"]))


@pytest.mark.parametrize("last", ["1.5", "1.5e0", "x", "7"])
def test_leading_zeros_mean_the_same_wherever_in_a_large_file(tmp_path, monkeypatch, last):
    rows = "\n".join(f"007 {i}" for i in range(60))
    (tmp_path / "in.star").write_text(f"data_\nloop_\n_a\n_b\n{rows}\n{last} 60\n")
    small, large = large_and_small(monkeypatch, lambda: read_star(tmp_path / "in.star"))
    assert_same(small, large)


def test_large_tables_are_written_as_small_ones(tmp_path, monkeypatch, rng):
    six = np.round(rng.normal(size=40) * 10.0 ** rng.integers(-6, 8, 40), 6)
    six[:4] = [0.0, -0.0, -1e-6, 999999999.999999]
    edges = np.r_[np.iinfo(np.int64).min, np.iinfo(np.int64).max, -1, 0, np.arange(36)]
    words = (WORDS + LIKE_SYNTAX + LIKE_NUMBERS + ["mic.mrc"] * 40)[:40]
    table = pd.DataFrame(
        {
            "rlnMicrographName": words,
            "rlnImageName": [f"{i:06d}@{'x' * (i % 13)}.mrcs" for i in range(40)],
            "six": six,
            "digits": rng.normal(size=40),
            "whole": edges,
            "unsigned": edges.astype(np.uint64),
            "flag": np.arange(40) % 2 == 0,
            "gaps": np.where(np.arange(40) % 5, six, np.nan),
            "single": six.astype(np.float32),
            "like_numbers": ["7", "x"] * 20,
            "vectors": [np.arange(2.0)] * 40,
        }
    )

    def written():
        write_star(tmp_path / "out.star", {"particles": table, "none": table[:0]})
        return {"": {"lines": (tmp_path / "out.star").read_text().splitlines()}}

    small, large = large_and_small(monkeypatch, written)
    for one, other in zip(small[""]["lines"], large[""]["lines"], strict=True):
        assert one == other
    assert small["told"] == large["told"]
