"""RELION's job files mean the same here, and ours are files that RELION knows."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cryorefine.errors import UserError
from cryorefine.io.star import read_star, write_star
from cryorefine.jobs import ctf_refine, image_handler, mask_create, postprocess, refine3d
from cryorefine.jobs.base import Job
from cryorefine.jobs.relion_job import KEYS, read_job, write_job

RELION_3_1 = """
# version 30001

data_job

_rlnJobType                            {number}
_rlnJobIsContinue                       0


# version 30001

data_joboptions_values

loop_
_rlnJobOptionVariable #1
_rlnJobOptionValue #2
{rows}

"""
"""The layout in which RELION 3.1.3 writes job.star; it numbers the types of job."""


def job_file(folder: Path, number: int, **values: str) -> Path:
    path = folder / "job.star"
    rows = "\n".join(f"{key:>10} {value:>10} " for key, value in values.items())
    path.write_text(RELION_3_1.format(number=number, rows=rows))
    return path


def round_trip(job: Job, options: Any, folder: Path) -> Any:
    write_star(folder / "job.star", write_job(job, options))
    file = read_job(folder / "job.star", output=options.output)
    assert file.name == job.name
    assert file.notices == ()
    return file.options


OURS = [
    (
        refine3d.JOB,
        refine3d.Options(
            particles=Path("Select/job005/particles of mine.star"),
            reference=Path("run_half1_class001_unfil.mrc"),
            reference_mask=Path("mask.mrc"),
            output=Path("Refine3D/job007"),
            absolute_greyscale=True,
            initial_lowpass=12.5,
            symmetry="D2",
            ctf_correction=False,
            ctf_intact_first_peak=True,
            reference_ctf_corrected=False,
            data_phase_flipped=True,
            mask_diameter=187.5,
            zero_mask=False,
            solvent_flattened_fsc=True,
            initial_angular_sampling=3.7,
            initial_offset_range=3,
            initial_offset_step=0.5,
            local_search_from=0.9,
            relax_symmetry="C4",
            finer_sampling_faster=True,
            padding=1,
            threads=3,
            device="gpu:1",
            scheduler="tcp://node1:8786",
            random_seed=17,
        ),
    ),
    (
        mask_create.JOB,
        mask_create.Options(
            input=Path("run_class001.mrc"),
            output=Path("MaskCreate/job008"),
            pixel_size=1.0825,
            threshold=0.00512,
            extend=0,
            soft_edge=6,
            lowpass=25,
            invert=True,
        ),
    ),
    (
        postprocess.JOB,
        postprocess.Options(
            half_map=Path("run_half1_class001_unfil.mrc"),
            output=Path("PostProcess/job009"),
            mask=Path("mask.mrc"),
            mtf=Path("mtf.star"),
            mtf_pixel_size=0.885,
            auto_bfactor=False,
            bfactor=-82.702,
            skip_fsc_weighting=True,
            lowpass=3.5,
            random_seed=5,
        ),
    ),
    (
        ctf_refine.JOB,
        ctf_refine.Options(
            particles=Path("Refine3D/job021/run_data.star"),
            postprocess=Path("PostProcess/job023/postprocess.star"),
            output=Path("CtfRefine/job024"),
            minimum_resolution=25.5,
            fit_defocus="per-particle",
            defocus_range=1500,
            fit_astigmatism="per-micrograph",
            fit_phase_shift="per-micrograph",
            fit_bfactor="per-particle",
            fit_beamtilt=True,
            fit_trefoil=True,
            fit_fourth_order=True,
            fit_anisotropic_magnification=True,
            symmetry="D2",
            threads=2,
            device="gpu:0",
        ),
    ),
    (mask_create.JOB, mask_create.Options(input=Path("map.mrc"), output=Path("MaskCreate/job010"))),
    (postprocess.JOB, postprocess.Options(half_map=Path("half1.mrc"), output=Path("PostProcess/job011"))),
]


@pytest.mark.parametrize(("job", "options"), OURS)
def test_options_survive_the_way_through_a_job_file(job: Job, options: Any, tmp_path: Path) -> None:
    assert round_trip(job, options, tmp_path) == options


def test_values_are_written_as_relion_writes_them() -> None:
    blocks = write_job(refine3d.JOB, OURS[0][1])
    table = blocks["joboptions_values"]
    texts = dict(zip(table["rlnJobOptionVariable"], table["rlnJobOptionValue"], strict=True))

    assert blocks["job"] == {"rlnJobTypeLabel": "relion.refine3d", "rlnJobIsContinue": 0, "rlnJobIsTomo": 0}
    assert list(table["rlnJobOptionVariable"]) == sorted(table["rlnJobOptionVariable"])
    for key, text in {
        "sampling": "3.7 degrees",
        "auto_local_sampling": "0.9 degrees",
        "do_pad1": "Yes",
        "do_zero_mask": "No",
        "ini_high": "12.5",
        "offset_range": "3",
        "fn_img": "Select/job005/particles of mine.star",
        "fn_cont": "",
    }.items():
        assert texts[key] == text


def test_a_b_factor_of_ones_own_switches_the_estimate_off_as_relion_demands() -> None:
    options = postprocess.Options(half_map=Path("half1.mrc"), output=Path("job"), bfactor=-80)
    table = write_job(postprocess.JOB, options)["joboptions_values"]
    texts = dict(zip(table["rlnJobOptionVariable"], table["rlnJobOptionValue"], strict=True))

    assert (texts["do_auto_bfac"], texts["do_adhoc_bfac"], texts["adhoc_bfac"]) == ("No", "Yes", "-80")


@pytest.mark.parametrize(
    ("label", "real"),
    [
        ("relion.refine3d", "16_himena_relion5_job_stars/jobs_spa/Refine3D/job001/job.star"),
        ("relion.postprocess", "16_himena_relion5_job_stars/jobs_tomo/PostProcess/job001/job.star"),
        ("relion.ctfrefine", "16_himena_relion5_job_stars/jobs_spa/CtfRefine/job001/job.star"),
    ],
)
def test_we_write_the_keys_that_relion_5_writes(label: str, real: str, shared: Path) -> None:
    table = read_star(shared / "data" / "star_files" / real)["joboptions_values"]

    assert sorted(KEYS[label]) == sorted(table["rlnJobOptionVariable"])


def test_every_job_file_of_real_projects_is_read_or_refused_by_its_type(shared: Path) -> None:
    read, refused = [], []
    for path in sorted((shared / "data").rglob("job.star")):
        label = read_star(path)["job"]["rlnJobTypeLabel"]
        if label in KEYS:
            read.append(read_job(path))
        else:
            with pytest.raises(UserError, match=f"a job of type {label}; the types that can be run are"):
                read_job(path)
            refused.append(label)

    assert {file.name for file in read} >= {"refine3d", "postprocess", "ctf-refine", "pseudo-subtomo"}
    assert any(getattr(file.options, "optimisation_set", None) for file in read if file.name == "refine3d")
    assert "relion.reconstructtomograms" in refused


def test_a_job_file_of_relion_5_means_what_it_says(shared: Path) -> None:
    folder = shared / "data" / "hiv_sta_relion5_metadata" / "PostProcess" / "job079"
    file = read_job(folder / "job.star")

    assert file.name == "postprocess"
    assert file.options == postprocess.Options(
        half_map=Path("Reconstruct/job078/half1.mrc"),
        mask=Path("mask_fsc.mrc"),
        output=folder,
    )


def test_an_extraction_without_limits_is_read(shared: Path, tmp_path: Path) -> None:
    text = (shared / "data/hiv_sta_relion5_metadata/Extract/job020/job.star").read_text()
    for key, value in (("crop_size", "192"), ("max_dose", "50"), ("min_frames", "1")):
        assert re.search(rf"{key} +{value} ", text)
        text = re.sub(rf"{key} +{value} ", f"{key}  -1 ", text)
    (tmp_path / "job.star").write_text(text)

    options = read_job(tmp_path / "job.star").options

    assert (options.crop_size, options.max_dose, options.min_frames) == (None, None, 1)
    options.check()


def test_a_job_file_of_relion_3_1_with_numbered_types_is_read(tmp_path: Path) -> None:
    path = job_file(
        tmp_path,
        10,
        fn_img="p.star",
        fn_ref="r.mrc",
        sampling='"1.8 degrees"',
        ctf_corrected_ref="No",
        skip_gridding="Yes",
        do_solvent_fsc="Yes",
        fn_mask='""',
        gpu_ids="0:1",
        use_gpu="Yes",
    )
    options = read_job(path).options

    assert options == refine3d.Options(
        particles=Path("p.star"),
        reference=Path("r.mrc"),
        output=tmp_path,
        initial_angular_sampling=1.8,
        reference_ctf_corrected=False,
    )


def test_continuing_a_refinement_of_relion_goes_on_in_the_folder_of_its_optimiser(tmp_path: Path) -> None:
    path = job_file(tmp_path, 10, fn_cont="Refine3D/job007/run_it011_optimiser.star", fn_img="p.star")
    assert read_job(path).options.continue_from is None

    path.write_text(path.read_text().replace("IsContinue                       0", "IsContinue 1"))
    assert read_job(path).options.continue_from == Path("Refine3D/job007")


def test_files_are_found_from_the_project_above_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project" / "MaskCreate" / "job002"
    folder.mkdir(parents=True)
    (tmp_path / "project" / "map.mrc").write_text("")
    path = job_file(folder, 12, fn_in="map.mrc")
    monkeypatch.chdir(tmp_path)

    assert read_job(path).options.input == tmp_path / "project" / "map.mrc"

    monkeypatch.chdir(tmp_path / "project")
    assert read_job(Path("MaskCreate/job002/job.star")).options == mask_create.Options(
        input=Path("map.mrc"), output=Path("MaskCreate/job002")
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"do_helix": "Yes"}, "asks for helical processing"),
        ({"do_blush": "Yes"}, "asks for Blush"),
        ({"particle_diameter": "wide"}, "particle_diameter is 'wide', which cannot be read"),
        ({"sampling": "fine"}, "sampling is 'fine', which cannot be read"),
        ({"do_zero_mask": "maybe"}, "do_zero_mask is 'maybe', which cannot be read"),
    ],
)
def test_what_would_change_the_result_is_refused(
    values: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        read_job(job_file(tmp_path, 10, fn_img="p.star", fn_ref="r.mrc", **values))


def test_additional_arguments_are_left_out_and_said_so(tmp_path: Path) -> None:
    file = read_job(job_file(tmp_path, 10, fn_img="p.star", fn_ref="r.mrc", other_args='"--tau2_fudge 4"'))

    assert "--tau2_fudge 4" in file.notices[0]


def test_other_files_are_no_job_files(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(UserError, match="is not a job file"):
        read_job(shared / "data" / "betagal_empiar10204" / "mtf_k2_200kV.star")
    with pytest.raises(UserError, match=r"nowhere\.star"):
        read_job(tmp_path / "nowhere.star")


def test_a_job_without_counterpart_in_relion_has_no_keys() -> None:
    assert image_handler.JOB.relion_label not in KEYS


@pytest.mark.parametrize(("job", "options"), [OURS[0], OURS[2]], ids=["refine3d", "postprocess"])
def test_relion_reads_our_job_files(
    job: Job, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relion: Callable[[str], str]
) -> None:
    """RELION 3.1 schedules our job with our values; it knows the type of a job by number only."""
    program = relion("pipeliner")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default_pipeline.star").write_text("data_pipeline_general\n\n_rlnPipeLineJobCounter 1\n\n")
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, Path) and field.name != "output":
            value.parent.mkdir(parents=True, exist_ok=True)
            value.write_text("")
    blocks = write_job(job, options)
    blocks["job"] = {"rlnJobType": {"refine3d": 10, "postprocess": 15}[job.name], "rlnJobIsContinue": 0}
    loop = blocks["joboptions_values"]
    ours = dict(zip(loop["rlnJobOptionVariable"], loop["rlnJobOptionValue"], strict=True))
    write_star(tmp_path / "ours.star", blocks)

    subprocess.run([program, "--addJobFromStar", "ours.star"], check=True, timeout=60, capture_output=True)

    table = read_star(tmp_path / job.folder / "job001" / "job.star")["joboptions_values"]
    theirs = table.set_index("rlnJobOptionVariable")["rlnJobOptionValue"].to_dict()
    assert {key: theirs[key] for key in theirs if key in ours} == {
        key: ours[key] for key in theirs if key in ours
    }
    assert len(set(theirs) & set(ours)) >= 17


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("per-particle", "no", True, True)),
        ({"do_ctf": "No"}, ("no", "no", True, True)),
        ({"do_tilt": "No"}, ("per-particle", "no", False, False)),
    ],
)
def test_the_switches_of_ctf_refine_act_as_in_relion(
    tmp_path: Path, changes: dict[str, str], expected: tuple[str, str, bool, bool]
) -> None:
    values = {"fn_data": "run_data.star", "fn_post": "postprocess.star", "do_defocus": "Per-particle"}
    values |= {"do_astig": "No", "do_ctf": "Yes", "do_tilt": "Yes", "do_trefoil": "Yes"} | changes
    options = read_job(job_file(tmp_path, 21, **values)).options

    assert isinstance(options, ctf_refine.Options)
    fitted = (options.fit_defocus, options.fit_astigmatism, options.fit_beamtilt, options.fit_trefoil)
    assert fitted == expected


def test_refinement_of_subtomograms_has_its_own_label_and_keys(tmp_path: Path) -> None:
    for name in ("set.star", "particles.star", "tomograms.star", "half1.mrc", "mask.mrc"):
        (tmp_path / name).touch()
    options = refine3d.Options(
        optimisation_set=tmp_path / "set.star",
        output=tmp_path / "Refine3D" / "job001",
        sigma_tilt=10.0,
        solvent_flattened_fsc=True,
    )
    blocks = write_job(refine3d.JOB, options)
    assert blocks["job"]["rlnJobTypeLabel"] == "relion.refine3d.tomo"
    assert blocks["job"]["rlnJobIsTomo"] == 1
    path = tmp_path / "job.star"
    write_star(path, blocks)
    assert read_job(path, output=options.output).options == options

    direct = refine3d.Options(
        particles=tmp_path / "particles.star",
        tomograms=tmp_path / "tomograms.star",
        reference=tmp_path / "half1.mrc",
        output=tmp_path / "Refine3D" / "job002",
    )
    blocks = write_job(refine3d.JOB, direct)
    loop = blocks["joboptions_values"]
    texts = dict(zip(loop["rlnJobOptionVariable"], loop["rlnJobOptionValue"], strict=True))
    assert texts["use_direct_entries"] == "Yes"
    assert texts["in_particles"] == str(tmp_path / "particles.star")
    write_star(path, blocks)
    assert read_job(path, output=direct.output).options == direct
