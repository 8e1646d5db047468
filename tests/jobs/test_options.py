"""The options of every job are whole, and read the same from every side."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from cryorefine.errors import UserError
from cryorefine.jobs import refine3d
from cryorefine.jobs.base import describe, flag_of, option, value_types
from cryorefine.jobs.check import checked
from cryorefine.jobs.command import add_options, command, options_from
from cryorefine.jobs.registry import JOBS, load
from cryorefine.jobs.relion_job import KEYS

COMMANDS = {
    "refine3d": "--particles P.star --reference MAP.mrc --output Refine3D/job001 --initial-lowpass 50 "
    "--symmetry D2 --mask-diameter 200 --reference-mask M.mrc --absolute-greyscale --no-ctf-correction "
    "--ctf-intact-first-peak --reference-ctf-corrected --data-phase-flipped --no-zero-mask "
    "--solvent-flattened-fsc --initial-angular-sampling 7.5 --initial-offset-range 5 "
    "--initial-offset-step 1 --local-search-from 1.8 --relax-symmetry C4 --finer-sampling-faster "
    "--padding 2 --threads 2 --device gpu:0 --random-seed 1 --continue Refine3D/job001 "
    "--from-iteration 3",
    "mask-create": "--input MAP.mrc --output MaskCreate/job002 --lowpass 15 --pixel-size 1.244 "
    "--threshold 0.005 --extend 0 --soft-edge 6 --device gpu:0",
    "postprocess": "--half-map run_half1_class001_unfil.mrc --mask mask.mrc --output PostProcess/job003 "
    "--pixel-size 1.244 --mtf F.star --mtf-pixel-size 0.885 --auto-bfactor --autob-lowest-resolution 10 "
    "--bfactor -80 --skip-fsc-weighting --lowpass 5 --random-seed 1 --device auto",
    "ctf-refine": "--particles run_data.star --postprocess postprocess.star --output CtfRefine/job024 "
    "--minimum-resolution 25 --fit-defocus per-particle --defocus-range 1500 "
    "--fit-astigmatism per-micrograph --fit-phase-shift per-micrograph --fit-bfactor per-particle "
    "--fit-beamtilt --fit-trefoil "
    "--fit-fourth-order --fit-anisotropic-magnification --symmetry D2 --threads 2 --device gpu:0 "
    "--continue CtfRefine/job024",
    "pseudo-subtomo": "--optimisation-set S.star --particles P.star --tomograms T.star --trajectories M.star "
    "--output Extract/job010 --binning 2 --box-size 256 --crop-size 128 --max-dose 50 --min-frames 3 "
    "--no-stack-2d --no-float16 --device gpu",
    "reconstruct-particle": "--optimisation-set S.star --particles P.star --tomograms T.star "
    "--trajectories M.star --output Reconstruct/job011 --binning 2 --box-size 256 --crop-size 128 "
    "--symmetry C6 --snr 0.5 --max-dose 50 --fsc-mask mask.mrc --device gpu",
    "directional-fsc": "--half-map run_half1_class001_unfil.mrc --mask mask.mrc "
    "--output DirectionalFsc/job004 --pixel-size 1.244 --cone-angle 20 --healpix-order 2 --symmetry D2 "
    "--threshold 0.5 --threads 2",
    "orientations": "--particles run_data.star --symmetry D2 --output Orientations/job005 --healpix-order 4 "
    "--fourier-radius 80",
    "image-handler": "--input MAP.mrc --output OUT.mrc --pixel-size 3.54 "
    "--rescale-pixel-size 1.244 --new-box 256",
}
"""The command lines that scripts rely on."""


def parse(name: str, words: list[str]) -> Any:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    add_options(parser, load(name).Options)
    return options_from(parser.parse_args(words), load(name).Options)


def other_value(kind: type, default: Any, choices: tuple[str, ...], minimum: float | None) -> Any:
    """Return a value of an option that is not its default."""
    if kind is bool:
        return not default
    if choices:
        return next(kind(choice) for choice in choices if kind(choice) != default)
    if kind is Path:
        return Path("folder of mine/file.mrc")
    if kind is str:
        return "C4"
    if kind is int:
        return (default or int(minimum or 0)) + 2 if default != 2 else 1
    return -0.1234567890123 if minimum is None else (default or minimum) + 0.1234567890123


def every_option_changed(name: str) -> Any:
    """Return options of a job none of which is at its default."""
    kind = load(name).Options
    types = value_types(kind)
    return kind(
        **{
            option: other_value(types[option][0], field.default, about.choices, about.minimum)
            for option, (field, about) in describe(kind).items()
        }
    )


@pytest.mark.parametrize("name", JOBS)
def test_every_option_explains_itself(name: str) -> None:
    for option_name, (_, about) in describe(load(name).Options).items():
        assert about.label, option_name
        assert about.help.endswith("."), option_name


@pytest.mark.parametrize("name", JOBS)
def test_defaults_are_allowed_values(name: str) -> None:
    kind = load(name).Options
    types = value_types(kind)
    for option_name, (field, about) in describe(kind).items():
        value = field.default
        if value is dataclasses.MISSING or value is None:
            continue
        assert isinstance(value, types[option_name][0]), option_name
        if about.choices:
            assert value in [types[option_name][0](choice) for choice in about.choices]
        if about.minimum is not None:
            assert value >= about.minimum, option_name
        if about.maximum is not None:
            assert value <= about.maximum, option_name


@pytest.mark.parametrize("name", JOBS)
def test_every_key_of_relion_is_one_of_that_job(name: str) -> None:
    module = load(name)
    keys = [about.relion for _, about in describe(module.Options).values() if about.relion]

    assert len(keys) == len(set(keys))
    label = module.JOB.relion_label
    assert set(keys) <= set(KEYS.get(label, {})) | set(KEYS.get(label + ".tomo", {}))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_lines_that_scripts_rely_on_are_understood(name: str) -> None:
    words = shlex.split(COMMANDS[name])
    options = parse(name, words)
    names = {flag_of(name, about)[2:]: name for name, (_, about) in describe(type(options)).items()}

    for place, word in enumerate(words):
        if word.startswith("--no-"):
            assert getattr(options, names[word.removeprefix("--no-")]) is False, word
        elif word.startswith("--"):
            value = getattr(options, names[word[2:]])
            if isinstance(value, bool):
                assert value, word
            else:
                assert value == type(value)(words[place + 1]), word


@pytest.mark.parametrize("name", JOBS)
def test_options_written_as_a_command_are_read_back_the_same(name: str) -> None:
    options = every_option_changed(name)
    words = command(load(name).JOB, options)

    assert words[:2] == ["cryorefine", name]
    assert parse(name, words[2:]) == options


def test_a_command_spells_out_only_what_differs_from_the_defaults() -> None:
    options = refine3d.Options(particles=Path("p.star"), reference=Path("r.mrc"), zero_mask=False)

    assert command(refine3d.JOB, options)[2:] == [
        "--particles",
        "p.star",
        "--reference",
        "r.mrc",
        "--no-zero-mask",
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    output: Path = option(Path("out"), label="Output", help="A file.", kind="map")
    input: Path | None = option(None, label="Input", help="A file.", kind="map")
    folder: Path | None = option(None, label="Folder", help="A folder.", kind="folder")
    angle: float = option(10.0, label="Angle", help="An angle.", unit="degrees", minimum=-5, maximum=90)
    box: int = option(64, label="Box", help="A size.", unit="px")
    order: float = option(7.5, label="Step", help="A step.", choices=("15", "7.5"))
    mode: str = option("fast", label="Mode", help="A mode.", choices=("fast", "slow"))
    dose: float | None = option(None, label="Dose", help="A dose.", minimum=0.001)
    below: float | None = option(None, label="Below", help="May be negative.", minimum=-2)


def test_good_options_pass_and_their_paths_become_paths(tmp_path: Path) -> None:
    (tmp_path / "map.mrc").write_text("")
    options = checked(Sample(input=str(tmp_path / "map.mrc"), folder=tmp_path, order=15))  # type: ignore[arg-type]

    assert options.input == tmp_path / "map.mrc"
    assert not options.output.exists()


def test_minus_one_is_what_is_not_given() -> None:
    options = checked(Sample(dose=-1, below=-1))
    assert (options.dose, options.below) == (None, -1)
    with pytest.raises(UserError, match="--dose -2 is too small"):
        checked(Sample(dose=-2))


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ({"input": Path("nowhere.mrc")}, "--input nowhere.mrc does not exist; check the name"),
        ({"input": Path("/")}, "--input / is a folder; give a file"),
        ({"folder": Path("/dev/null")}, "--folder /dev/null is a file; give a folder"),
        ({"input": Path("/dev/null/x.mrc")}, "--input /dev/null/x.mrc does not exist"),
        ({"angle": -6}, "--angle -6 is too small; the least is -5 degrees"),
        ({"angle": 100.5}, "--angle 100.5 is too large; the most is 90 degrees"),
        ({"angle": float("nan")}, "--angle nan is not a finite number"),
        ({"angle": "7"}, "--angle '7' is not a number"),
        ({"box": 64.5}, "--box 64.5 is not a whole number"),
        ({"order": 8.0}, "--order 8.0 is not a choice; give one of 15, 7.5"),
        ({"mode": "lazy"}, "--mode lazy is not a choice; give one of fast, slow"),
    ],
)
def test_a_mistake_is_one_sentence_with_option_value_and_remedy(
    mistake: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        checked(Sample(**mistake))

    assert str(caught.value).startswith(sentence)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "needs --particles"),
        ({"particles": Path("/dev/null")}, "needs --reference"),
        ({"device": "cuda"}, "--device cuda is not a device; give cpu, auto, gpu, or gpu:0,1"),
        ({"scheduler": "node1"}, "--scheduler node1 is not a Dask address"),
        ({"cluster": "local"}, "--cluster local does not say how many processes"),
        ({"scheduler": "tcp://n:1", "cluster": "local:2"}, "--scheduler and --cluster contradict each other"),
        ({"solvent_flattened_fsc": True}, "--solvent-flattened-fsc needs a mask"),
    ],
)
def test_what_refine3d_cannot_do_is_refused_at_once(options: dict[str, Any], sentence: str) -> None:
    files = {"particles": Path("/dev/null"), "reference": Path("/dev/null")}
    needed = {} if not options or "particles" in options else files
    with pytest.raises(UserError, match=sentence):
        checked(refine3d.Options(**needed, **options))


def test_a_continued_refinement_needs_no_input(tmp_path: Path) -> None:
    assert checked(refine3d.Options(continue_from=tmp_path)).continue_from == tmp_path
