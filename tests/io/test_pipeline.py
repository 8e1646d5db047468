"""RELION's pipeline is changed where something is to be changed, and nowhere else."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from cryorefine.errors import UserError
from cryorefine.io.pipeline import Pipeline, Process, new_pipeline, read_pipeline

HEAD = "\n# version {version}\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter {counter:>23}\n \n"
WORDS = (
    HEAD.format(version=50001, counter=8)
    + """
# version 50001

data_pipeline_processes

loop_
_rlnPipeLineProcessName #1
_rlnPipeLineProcessAlias #2
_rlnPipeLineProcessTypeLabel #3
_rlnPipeLineProcessStatusLabel #4
Import/job001/       None relion.importtomo  Succeeded
Refine3D/job007/ Refine3D/bin6/ relion.refine3d.tomo    Running


# a remark of somebody

data_something_new

loop_
_what
kept

"""
)
MASK = Process("MaskCreate/job008", "", "relion.maskcreate", "Running")


def real(shared: Path) -> list[Path]:
    """Pipelines of RELION 3, 4 and 5 as their programs have left them."""
    found = [
        "hiv_sta_relion5_metadata/pipelines/default_pipeline.star",
        "hiv_sta_relion5_metadata/pipelines/forked_pipeline.star",
        "hiv_sta_relion5_metadata/pipelines/short_pipeline.star",
        "hiv_sta_relion5_metadata/pipelines/single_import_pipeline.star",
        "star_files/02_em-testdata/metadata/default_pipeline.star",
        "star_files/20_starfile_tests/default_pipeline.star",
    ]
    return [shared / "data" / name for name in found]


def added(before: str, after: str) -> list[str]:
    """Return the lines that differ, with + and -, blanks drawn together."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [" ".join(line.split()) for line in lines if line[0] in "+-"]


def test_reading_and_writing_changes_no_letter(shared: Path, tmp_path: Path) -> None:
    for file in real(shared):
        read_pipeline(file).write(tmp_path / "copy.star")
        assert (tmp_path / "copy.star").read_bytes() == file.read_bytes(), file


def test_a_project_of_relion_5_is_read(shared: Path) -> None:
    pipeline = read_pipeline(real(shared)[0])
    assert pipeline.job_counter == 84
    assert len(pipeline.processes()) == 80
    assert pipeline.processes()[11] == Process("Refine3D/job012", "bin6", "relion.refine3d.tomo", "Succeeded")
    assert "Reconstruct/job011/half1.mrc" in pipeline.outputs("Reconstruct/job011")
    assert pipeline.inputs("MotionCorr/job002") == ["Import/job001/tilt_series.star"]


def test_the_numbers_of_relion_3_are_read_as_words(shared: Path) -> None:
    pipeline = read_pipeline(real(shared)[-1])
    assert pipeline.in_numbers
    assert pipeline.processes()[18] == Process(
        "Refine3D/job019", "first3dref", "relion.refine3d", "Succeeded"
    )
    assert pipeline.nodes()["MaskCreate/job020/mask.mrc"] == "7"


def test_a_new_job_adds_its_lines_alone() -> None:
    pipeline = Pipeline(WORDS)
    pipeline.put_process(MASK)
    pipeline.add_input(MASK.name, "Refine3D/job007/run_class001.mrc", "DensityMap.mrc")
    pipeline.add_output(MASK.name, "MaskCreate/job008/mask.mrc", "Mask3D.mrc.relion")
    changes = added(WORDS, pipeline.text())
    assert changes[:3] == [
        "- _rlnPipeLineJobCounter 8",
        "+ _rlnPipeLineJobCounter 9",
        "+ MaskCreate/job008/ None relion.maskcreate Running",
    ]
    assert not [line for line in changes[2:] if line.startswith("-")]
    for line in (
        "+ Refine3D/job007/run_class001.mrc DensityMap.mrc 1",
        "+ Refine3D/job007/run_class001.mrc MaskCreate/job008/",
        "+ MaskCreate/job008/ MaskCreate/job008/mask.mrc",
    ):
        assert line in changes
    again = Pipeline(pipeline.text())
    assert again.outputs(MASK.name) == ["MaskCreate/job008/mask.mrc"]
    assert again.inputs(MASK.name) == ["Refine3D/job007/run_class001.mrc"]


def test_saying_a_thing_twice_is_saying_it_once() -> None:
    pipeline = Pipeline(WORDS)
    for _ in range(2):
        pipeline.put_process(MASK)
        pipeline.add_output(MASK.name, "MaskCreate/job008/mask.mrc", "Mask3D.mrc.relion")
    assert pipeline.text().count("MaskCreate/job008/mask.mrc") == 2
    assert pipeline.job_counter == 9


def test_a_job_that_has_ended_changes_its_line_alone() -> None:
    pipeline = Pipeline(WORDS)
    pipeline.put_process(Process("Refine3D/job007", "bin6", "relion.refine3d.tomo", "Succeeded"))
    assert [line for line in added(WORDS, pipeline.text()) if "Refine3D" in line] == [
        "- Refine3D/job007/ Refine3D/bin6/ relion.refine3d.tomo Running",
        "+ Refine3D/job007/ Refine3D/bin6/ relion.refine3d.tomo Succeeded",
    ]


def test_a_job_that_is_taken_out_leaves_nothing_behind() -> None:
    pipeline = Pipeline(WORDS)
    pipeline.put_process(MASK)
    pipeline.add_input(MASK.name, "Refine3D/job007/run_class001.mrc", "DensityMap.mrc")
    pipeline.remove_process(MASK.name)
    pipeline.job_counter = 8
    assert pipeline.text() == WORDS


def test_a_pipeline_in_numbers_gets_numbers(shared: Path) -> None:
    pipeline = read_pipeline(real(shared)[-1])
    before = pipeline.text()
    pipeline.put_process(Process("Extract/job032", "", "relion.pseudosubtomo", "Failed"))
    pipeline.add_output(
        "Extract/job032", "Extract/job032/particles.star", "ParticleGroupMetadata.star.relion"
    )
    pipeline.add_output("Extract/job032", "Extract/job032/optimisation_set.star", "TomoOptimisationSet.star")
    changes = added(before, pipeline.text())
    assert "+ Extract/job032/ None 99 3" in changes  # RELION 3 has no such job: an external one
    assert "+ Extract/job032/particles.star 3" in changes
    assert "optimisation_set" not in pipeline.text()  # nor such a file


def test_the_first_job_of_a_project_begins_its_tables(tmp_path: Path) -> None:
    pipeline = new_pipeline(tmp_path / "default_pipeline.star")
    assert (pipeline.job_counter, pipeline.processes()) == (1, [])
    pipeline.put_process(Process("Refine3D/job001", "first", "relion.refine3d", "Running"))
    pipeline.write()
    (process,) = read_pipeline(tmp_path / "default_pipeline.star").processes()
    assert process == Process("Refine3D/job001", "first", "relion.refine3d", "Running")


def test_a_file_without_a_last_line_break_stays_whole(tmp_path: Path) -> None:
    text = WORDS.partition("\n\n# a remark")[0].rstrip()
    pipeline = Pipeline(text)
    assert pipeline.text() == text
    pipeline.put_process(MASK)
    pipeline.add_output(MASK.name, "MaskCreate/job008/mask.mrc", "Mask3D.mrc.relion")
    assert len(Pipeline(pipeline.text()).processes()) == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "how many jobs"),
        (WORDS[:300], "column"),
        (WORDS[: WORDS.index("    Running")], "3 words for 4 columns"),
        (WORDS.replace("\nRefine3D/job007", "\n \nRefine3D/job007"), "behind a blank line"),
        (WORDS + WORDS, "two blocks"),
    ],
)
def test_a_damaged_pipeline_is_refused_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        Pipeline(text)


def test_a_column_of_a_later_relion_is_not_filled_by_guessing() -> None:
    text = WORDS.replace("StatusLabel #4\n", "StatusLabel #4\n_rlnPipeLineProcessMood #5\n")
    text = text.replace("Succeeded\n", "Succeeded merry\n").replace("Running\n", "Running calm\n")
    pipeline = Pipeline(text)
    with pytest.raises(UserError, match="rlnPipeLineProcessMood"):
        pipeline.put_process(MASK)
    assert len(pipeline.processes()) == 2


@pytest.mark.parametrize("breaks", [b"\n", b"\r\n"])
def test_letters_of_another_alphabet_and_line_ends_stay(tmp_path: Path, breaks: bytes) -> None:
    content = WORDS.encode().replace(b"a remark", b"une r\xe9marque").replace(b"\n", breaks)
    (tmp_path / "default_pipeline.star").write_bytes(content)
    pipeline = read_pipeline(tmp_path / "default_pipeline.star")
    pipeline.put_process(MASK)
    pipeline.remove_process(MASK.name)
    pipeline.job_counter = 8
    pipeline.write()
    assert (tmp_path / "default_pipeline.star").read_bytes() == content
