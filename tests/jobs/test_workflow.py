"""The workflow of a project: what has been done, what comes next, and what feeds it."""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryorefine import cli
from cryorefine.io.mrc import write_map
from cryorefine.io.star import Columns, write_star
from cryorefine.jobs import refine3d, suggest
from cryorefine.jobs.base import Figures, Progress, describe
from cryorefine.jobs.command import add_options, options_from
from cryorefine.jobs.events import to_line
from cryorefine.jobs.folder import lock
from cryorefine.jobs.lineage import Lineage
from cryorefine.jobs.project import read_project
from cryorefine.jobs.registry import load
from cryorefine.jobs.relion_job import write_job
from cryorefine.jobs.workflow import PRODUCTS, SINGLE_PARTICLES, STARTS, SUBTOMOGRAMS, WORKFLOWS, Workflow
from cryorefine.jobs.workflow_starts import Start, find_starts, with_rescaled
from cryorefine.jobs.workflow_state import StepState, next_step, read_states
from cryorefine.jobs.workflow_values import suggestions_for, values_for

METADATA = "data/hiv_sta_relion5_metadata"
HALF = "run_half1_class001_unfil.mrc"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty project folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_job(name: str, command: str, *, box: int = 8, ended: str = "SUCCESS", **options: Any) -> Path:
    """Write the folder of a job as it is when it has ended, with tiny files."""
    module = load(command)
    folder = Path(name)
    folder.mkdir(parents=True)
    given = {"output": folder} | {key: Path(v) if "/" in str(v) else v for key, v in options.items()}
    for option, (field, _) in describe(module.Options).items():
        if option not in given and field.default is field.default_factory:  # it must be given
            given[option] = Path("none.mrc")
    write_star(folder / "job.star", write_job(module.JOB, module.Options(**given)))
    for file in PRODUCTS.get(command, {}).values() if ended == "SUCCESS" else ():
        if file.endswith(".mrc"):
            write_map(folder / file, np.zeros((box, box, box), np.float32), 2.0)
        else:
            write_star(folder / file, {"general": {"rlnFinalResolution": 4.25}})
    if ended:
        (folder / f"RELION_JOB_EXIT_{ended}").touch()
    return folder


def first_round() -> None:
    """Make the jobs of the tutorial up to CtfRefine."""
    make_job("Refine3D/job001", "refine3d", particles="particles.star", symmetry="D2")
    make_job("MaskCreate/job002", "mask-create", input="Refine3D/job001/run_class001.mrc")
    make_job("PostProcess/job003", "postprocess", half_map=f"Refine3D/job001/{HALF}")
    make_job(
        "CtfRefine/job004",
        "ctf-refine",
        particles="Refine3D/job001/run_data.star",
        postprocess="PostProcess/job003/postprocess.star",
        fit_beamtilt=True,
    )


def states_of(workflow: Workflow, **chosen: str) -> dict[str, StepState]:
    return {state.step.key: state for state in read_states(workflow, read_project("."), chosen)}


def values_of(workflow: Workflow, key: str, **chosen: str) -> dict[str, Any]:
    project = read_project(".")
    states = read_states(workflow, project, chosen)
    given = values_for(workflow.step(key), states, Lineage(project), find_starts(project))
    return {one.option: one.value for one in given}


def reasons_of(workflow: Workflow, key: str) -> dict[str, str]:
    project = read_project(".")
    states = read_states(workflow, project)
    given = values_for(workflow.step(key), states, Lineage(project), find_starts(project))
    return {one.option: one.reason for one in given}


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_the_table_names_options_and_products_that_there_are(workflow):
    jobs = {step.key: step.job for step in workflow.steps}
    for step in workflow.steps:
        options = describe(load(step.job).Options)
        assert set(step.settings) <= set(options)
        for feed in step.feeds:
            assert feed.option in options
            for source in feed.steps:
                if source in jobs and not feed.carried:
                    assert feed.what in PRODUCTS[jobs[source]]
            assert set(feed.starts) <= {*STARTS, "rescaled", "mtf", "detector pixel size"}


def test_each_step_is_fed_by_the_newest_job_before_it(project):
    first_round()
    make_job("Refine3D/job005", "refine3d", particles="particles.star", ended="FAILURE")
    (project / "Refine3D/refined").symlink_to("job001")
    values = values_of(SINGLE_PARTICLES, "postprocess")
    assert values == {"half_map": Path(f"Refine3D/job001/{HALF}"), "mask": Path("MaskCreate/job002/mask.mrc")}
    assert reasons_of(SINGLE_PARTICLES, "postprocess")["half_map"] == "from Refine3D/job001 (refined)"
    values = values_of(SINGLE_PARTICLES, "ctf")
    assert values["postprocess"] == Path("PostProcess/job003/postprocess.star")
    assert values["particles"] == Path("Refine3D/job001/run_data.star")
    assert values["symmetry"] == "D2"
    values = values_of(SINGLE_PARTICLES, "refine3d-again")
    assert values["particles"] == Path("CtfRefine/job004/particles_ctf_refine.star")
    assert values["reference"] == Path(f"Refine3D/job001/{HALF}")
    assert values["reference_mask"] == Path("MaskCreate/job002/mask.mrc")
    assert values["solvent_flattened_fsc"] is True


def test_another_job_may_be_chosen_to_take_from(project):
    first_round()
    make_job("Refine3D/job006", "refine3d", particles="particles.star")
    assert values_of(SINGLE_PARTICLES, "mask")["input"] == Path("Refine3D/job006/run_class001.mrc")
    chosen = values_of(SINGLE_PARTICLES, "mask", refine3d="Refine3D/job001")
    assert chosen["input"] == Path("Refine3D/job001/run_class001.mrc")


def test_ctf_refinement_gets_the_particles_that_the_sharpened_map_was_made_of(project):
    first_round()
    make_job("Refine3D/job006", "refine3d", particles="particles.star")
    assert values_of(SINGLE_PARTICLES, "ctf")["particles"] == Path("Refine3D/job001/run_data.star")


def test_the_second_round_is_told_from_the_first_by_what_went_in(project):
    first_round()
    assert states_of(SINGLE_PARTICLES)["refine3d-again"].status == "not run"
    particles = "CtfRefine/job004/particles_ctf_refine.star"
    make_job("Refine3D/job005", "refine3d", particles=particles)
    make_job("PostProcess/job006", "postprocess", half_map=str(project / f"Refine3D/job005/{HALF}"))
    states = states_of(SINGLE_PARTICLES)
    names = {key: state.job.name for key, state in states.items() if state.job}
    assert names["refine3d"] == "Refine3D/job001"
    assert names["refine3d-again"] == "Refine3D/job005"
    assert names["postprocess"] == "PostProcess/job003"
    assert names["postprocess-again"] == "PostProcess/job006"
    # The next CtfRefine goes on from the second round.
    assert values_of(SINGLE_PARTICLES, "ctf")["particles"] == Path("Refine3D/job005/run_data.star")


def test_the_next_step_follows_the_newest_job(project):
    def following() -> str | None:
        step = next_step(list(states_of(SINGLE_PARTICLES).values()))
        return step.key if step else None

    assert following() == "rescale"
    make_job("Refine3D/job001", "refine3d", particles="particles.star")
    assert following() == "mask"
    make_job("LocalRes/job002", "local-resolution", half_map=f"Refine3D/job001/{HALF}")
    assert following() == "mask"
    folder = make_job("MaskCreate/job003", "mask-create", input="Refine3D/job001/run_class001.mrc", ended="")
    held = lock.take(folder)
    assert following() is None
    held.release()
    assert following() == "mask"  # it was killed


def test_subtomograms_at_their_nyquist_limit_are_extracted_anew(project):
    entries = "optimisation_set.star"
    make_job("Extract/job001", "pseudo-subtomo", optimisation_set=f"./{entries}", binning=4.0, box_size=64)
    make_job("Reconstruct/job002", "reconstruct-particle", optimisation_set=f"Extract/job001/{entries}")
    folder = make_job("Refine3D/job003", "refine3d", optimisation_set=f"Reconstruct/job002/{entries}")
    for resolution, step in ((30.0, "mask"), (11.0, "extract")):
        model = {"rlnCurrentResolution": resolution, "rlnPixelSize": 5.0}
        write_star(folder / "run_model.star", {"model_general": model})
        assert next_step(list(states_of(SUBTOMOGRAMS).values())) is SUBTOMOGRAMS.step(step)
    extraction = values_of(SUBTOMOGRAMS, "extract")
    assert extraction["optimisation_set"] == Path("Refine3D/job003/run_optimisation_set.star")
    assert "binning" not in values_of(SUBTOMOGRAMS, "reconstruct")  # that of the last round
    make_job("Extract/job004", "pseudo-subtomo", optimisation_set=f"Refine3D/job003/{entries}", binning=2.0)
    assert values_of(SUBTOMOGRAMS, "reconstruct")["binning"] == 2.0
    refinement = values_of(SUBTOMOGRAMS, "refine3d")["optimisation_set"]
    assert refinement == Path("Extract/job004/optimisation_set.star")
    # A refinement of subtomograms is no step of the other workflow.
    assert states_of(SINGLE_PARTICLES)["refine3d"].status == "not run"


def test_particles_and_reference_of_a_binning_may_be_made_in_either_order(project):
    def following() -> str | None:
        step = next_step(list(states_of(SUBTOMOGRAMS).values()))
        return step.key if step else None

    grid = {"binning": 2.0, "box_size": 64, "crop_size": 32}
    make_job("Reconstruct/job001", "reconstruct-particle", optimisation_set="./set.star", **grid)
    # Nothing has been cut out that could be refined.
    assert following() == "extract"
    extraction = values_of(SUBTOMOGRAMS, "extract")
    assert extraction["optimisation_set"] == Path("Reconstruct/job001/optimisation_set.star")
    assert {name: extraction[name] for name in grid} == grid
    entries = "Reconstruct/job001/optimisation_set.star"
    make_job("Extract/job002", "pseudo-subtomo", optimisation_set=entries, **grid)
    assert following() == "refine3d"
    folder = make_job("Refine3D/job003", "refine3d", optimisation_set="Extract/job002/optimisation_set.star")
    model = {"rlnCurrentResolution": 11.0, "rlnPixelSize": 5.0}
    write_star(folder / "run_model.star", {"model_general": model})
    assert following() == "extract"
    grid = {"binning": 1.0, "box_size": 128, "crop_size": 64}
    entries = "Refine3D/job003/run_optimisation_set.star"
    make_job("Reconstruct/job004", "reconstruct-particle", optimisation_set=entries, **grid)
    assert following() == "extract"
    entries = "Reconstruct/job004/optimisation_set.star"
    make_job("Extract/job005", "pseudo-subtomo", optimisation_set=entries, **grid)
    assert following() == "refine3d"


def test_a_running_job_tells_how_far_it_is_and_a_failed_one_why(project):
    folder = make_job("Refine3D/job001", "refine3d", particles="particles.star", ended="")
    events = [Figures({"iteration": 2, "resolution (A)": 8.123}), Progress("Iteration 3", 50, 200)]
    (folder / "progress.jsonl").write_text("".join(to_line(event) + "\n" for event in events) + '{"time": 1')
    held = lock.take(folder)
    state = states_of(SINGLE_PARTICLES)["refine3d"]
    assert (state.status, state.headline, state.percent) == ("running", "Iteration 3, 8.12 Å", 25)
    held.release()
    (folder / "RELION_JOB_EXIT_FAILURE").touch()
    (folder / "run.err").write_text("Traceback\nThe disk is full; make room.\n")
    state = states_of(SINGLE_PARTICLES)["refine3d"]
    assert (state.status, state.headline) == ("failed", "The disk is full; make room.")


def test_a_finished_job_is_told_by_its_figure(project):
    first_round()
    assert states_of(SINGLE_PARTICLES)["postprocess"].headline == "4.25 Å"
    figures = Figures({"resolution (A)": 7.08, "B-factor (A^2)": -316.47})
    (project / "PostProcess/job003/progress.jsonl").write_text(to_line(figures) + "\n")
    (project / "PostProcess/job003/job.star").touch()
    state = states_of(SINGLE_PARTICLES)["postprocess"]
    assert state.headline == "7.08 Å, B -316 Å²"


def test_a_mask_of_another_box_is_not_laid_over_the_half_maps(project):
    first_round()
    make_job("MaskCreate/job005", "mask-create", input="Refine3D/job001/run_class001.mrc", box=10)
    assert set(values_of(SINGLE_PARTICLES, "postprocess")) == {"half_map"}


def test_what_lies_in_the_folder_is_started_from(project):
    optics = Columns(rlnImageSize=[12], rlnImagePixelSize=[1.5], rlnMicrographOriginalPixelSize=[0.75])
    write_star("particles.star", {"optics": optics, "particles": {"rlnDefocusU": [1.0]}})
    write_map("reference.mrc", np.zeros((8, 8, 8), np.float32), 2.0)
    write_star("mtf_k2.star", {"": {"rlnResolutionInversePixel": [0.0]}})
    project_now = read_project(".")
    starts = find_starts(project_now)
    states = with_rescaled(read_states(SINGLE_PARTICLES, project_now), starts)
    assert states[0].status == "not run"
    values = {"input": Path("reference.mrc")}
    found = {g.option: g.value for g in suggestions_for(SINGLE_PARTICLES.steps[0], values, states, starts)}
    assert found == {"rescale_pixel_size": 1.5, "new_box": 12, "output": Path("reference_box12.mrc")}
    write_map("reference_box12.mrc", np.zeros((12, 12, 12), np.float32), 1.5)
    states = with_rescaled(states, starts)
    assert (states[0].status, states[0].headline) == ("succeeded", "12 px, 1.5 Å/px")
    given = values_for(SINGLE_PARTICLES.step("refine3d"), states, Lineage(project_now), starts)
    assert {g.option: g.value for g in given} == {
        "particles": Path("particles.star"),
        "reference": Path("reference_box12.mrc"),
    }
    make_job("Refine3D/job001", "refine3d", particles="particles.star")
    sharpening = values_of(SINGLE_PARTICLES, "postprocess")
    assert (sharpening["mtf"], sharpening["mtf_pixel_size"]) == (Path("mtf_k2.star"), 0.75)


def test_a_reference_that_fits_need_not_be_rescaled(project):
    optics = Columns(rlnImageSize=[8], rlnImagePixelSize=[2.0])
    write_star("particles.star", {"optics": optics, "particles": {"rlnDefocusU": [1.0]}})
    write_map("a.mrc", np.zeros((8, 8, 8), np.float32), 2.0)
    starts = find_starts(read_project("."), {"reference": Start(Path("a.mrc"), "of a layer")})
    states = with_rescaled(read_states(SINGLE_PARTICLES, read_project(".")), starts)
    assert states[0].status == "not needed"
    assert next_step(states) is SINGLE_PARTICLES.step("refine3d")


def test_the_next_command_is_printed_whole(project, capsys):
    first_round()
    assert cli.main(["next"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["2", "Refine3D", "done", "Refine3D/job001"]
    words = shlex.split(next(line for line in lines if line.startswith("cryorefine")))
    parser = argparse.ArgumentParser()
    add_options(parser, refine3d.Options)
    options = options_from(parser.parse_args(words[2:]), refine3d.Options)
    assert options.particles == Path("CtfRefine/job004/particles_ctf_refine.star")
    assert options.output == Path("Refine3D/job005")
    assert "  --particles: from CtfRefine/job004" in lines
    assert cli.main(["next", "--workflow", "subtomograms"]) == 0
    assert "Next: Extract subtomos" in capsys.readouterr().out
    assert cli.main(["next", "nowhere"]) == 2


def test_the_threshold_of_a_mask_is_above_the_solvent(project):
    rng = np.random.default_rng(2)
    z, y, x = np.indices((32, 32, 32)) - 16.0
    particle = np.exp(-(x**2 + y**2 + z**2) / 60)
    write_map("map.mrc", (particle + rng.normal(0, 0.05, particle.shape)).astype(np.float32), 3.0)
    threshold = suggest.for_mask(Path("map.mrc"), 15.0)["threshold"]
    assert 0.02 < threshold.value < 0.5
    assert "solvent" in threshold.reason


def test_a_real_project_of_relion_is_understood(shared, project):
    data = shared / METADATA
    if not data.is_dir():
        pytest.skip(f"{data} is absent")
    for folder in ("Extract", "Reconstruct", "Refine3D", "PostProcess"):
        shutil.copytree(data / folder, project / folder)
    shutil.copy(data / "pipelines/default_pipeline.star", project)
    states = states_of(SUBTOMOGRAMS)
    assert states["refine3d"].job.name == "Refine3D/job074"
    assert states["refine3d"].headline == "3.55 Å"
    assert states["postprocess"].headline == "3.32 Å, B -83 Å²"
    assert values_of(SUBTOMOGRAMS, "reconstruct")["symmetry"] == "C6"
    assert reasons_of(SUBTOMOGRAMS, "extract")["optimisation_set"] == "from Refine3D/job074 (cycle4)"
    assert states_of(SINGLE_PARTICLES)["refine3d"].jobs == ()
