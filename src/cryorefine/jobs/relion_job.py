"""RELION's job files: what they call our options, and how they write the values.

Keys and defaults are those of RELION 5's forms. Every key of a job is written, so that RELION's
own interface can load the file; what RELION has no key for stands in a table of our own beside
RELION's, which RELION passes over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryorefine.errors import UserError
from cryorefine.io.files import folders_of_names
from cryorefine.jobs.base import Job, describe, value_types
from cryorefine.jobs.registry import JOBS, load

if TYPE_CHECKING:
    from cryorefine.io.star import Columns

_HELIX = {
    "do_apply_helical_symmetry": "Yes",
    "do_helix": "No",
    "do_local_search_helical_symmetry": "No",
    "helical_nr_asu": "1",
    "helical_range_distance": "-1",
    "helical_rise_inistep": "0",
    "helical_rise_initial": "0",
    "helical_rise_max": "0",
    "helical_rise_min": "0",
    "helical_tube_inner_diameter": "-1",
    "helical_tube_outer_diameter": "-1",
    "helical_twist_inistep": "0",
    "helical_twist_initial": "0",
    "helical_twist_max": "0",
    "helical_twist_min": "0",
    "helical_z_percentage": "30",
    "keep_tilt_prior_fixed": "Yes",
    "range_psi": "10",
    "range_rot": "-1",
    "range_tilt": "15",
}
_QUEUE = {
    "do_queue": "No",
    "min_dedicated": "1",
    "other_args": "",
    "qsub": "sbatch",
    "qsubscript": "",
    "queuename": "openmpi",
}
_TOMO_INPUT = {
    "binning": "1",
    "box_size": "128",
    "crop_size": "-1",
    "in_optimisation": "",
    "in_particles": "",
    "in_tomograms": "",
    "in_trajectories": "",
    "use_direct_entries": "No",
}
KEYS: dict[str, dict[str, str]] = {
    "relion.refine3d": {
        **_HELIX,
        **_QUEUE,
        "auto_faster": "No",
        "auto_local_sampling": "1.8 degrees",
        "ctf_intact_first_peak": "No",
        "do_blush": "No",
        "do_combine_thru_disc": "No",
        "do_ctf_correction": "Yes",
        "do_pad1": "No",
        "do_parallel_discio": "Yes",
        "do_preread_images": "No",
        "do_solvent_fsc": "No",
        "do_zero_mask": "Yes",
        "fn_cont": "",
        "fn_img": "",
        "fn_mask": "",
        "fn_ref": "",
        "gpu_ids": "",
        "ini_high": "60",
        "nr_mpi": "3",
        "nr_pool": "3",
        "nr_threads": "1",
        "offset_range": "5",
        "offset_step": "1",
        "particle_diameter": "200",
        "ref_correct_greyscale": "No",
        "relax_sym": "",
        "sampling": "7.5 degrees",
        "scratch_dir": "",
        "sym_name": "C1",
        "trust_ref_size": "Yes",
        "use_gpu": "No",
    },
    "relion.maskcreate": {
        **_QUEUE,
        "angpix": "-1",
        "do_helix": "No",
        "extend_inimask": "3",
        "fn_in": "",
        "helical_z_percentage": "30",
        "inimask_threshold": "0.02",
        "lowpass_filter": "15",
        "nr_threads": "1",
        "width_mask_edge": "3",
    },
    "relion.postprocess": {
        **_QUEUE,
        "adhoc_bfac": "-1000",
        "angpix": "-1",
        "autob_lowres": "10",
        "do_adhoc_bfac": "No",
        "do_auto_bfac": "Yes",
        "do_skip_fsc_weighting": "No",
        "fn_in": "",
        "fn_mask": "",
        "fn_mtf": "",
        "low_pass": "5",
        "mtf_angpix": "1",
    },
    "relion.ctfrefine": {
        **_QUEUE,
        "do_4thorder": "No",
        "do_aniso_mag": "No",
        "do_astig": "No",
        "do_bfactor": "No",
        "do_ctf": "Yes",
        "do_defocus": "No",
        "do_phase": "No",
        "do_tilt": "No",
        "do_trefoil": "No",
        "fn_data": "",
        "fn_post": "",
        "minres": "30",
        "nr_mpi": "1",
        "nr_threads": "1",
    },
    "relion.localres.own": {
        **_QUEUE,
        "adhoc_bfac": "-100",
        "angpix": "-1",
        "do_relion_locres": "Yes",
        "do_resmap_locres": "No",
        "fn_in": "",
        "fn_mask": "",
        "fn_mtf": "",
        "fn_resmap": "",
        "locres_sampling": "25",
        "maxres": "0",
        "minres": "0",
        "nr_mpi": "1",
        "pval": "0.05",
        "randomize_at": "25",
        "stepres": "1",
    },
    "relion.pseudosubtomo": {
        **_QUEUE,
        **_TOMO_INPUT,
        "do_float16": "Yes",
        "do_stack2d": "Yes",
        "max_dose": "-1",
        "min_frames": "1",
        "nr_mpi": "1",
        "nr_threads": "1",
    },
    "relion.reconstructparticletomo": {
        **_QUEUE,
        **_TOMO_INPUT,
        "do_helix": "No",
        "helical_nr_asu": "1",
        "helical_rise": "4.75",
        "helical_tube_outer_diameter": "200",
        "helical_twist": "-1",
        "helical_z_percentage": "20",
        "nr_mpi": "1",
        "nr_threads": "1",
        "snr": "0",
        "sym_name": "C1",
    },
}
KEYS["relion.refine3d.tomo"] = {
    **{key: value for key, value in KEYS["relion.refine3d"].items() if key != "fn_img"},
    "in_optimisation": "",
    "in_particles": "",
    "in_tomograms": "",
    "in_trajectories": "",
    "sigma_tilt": "-1",
    "use_direct_entries": "No",
}
"""RELION's label of a job -> each key of its form and the default."""

_TOMO = ".tomo"
_OF_TOMO = {"fn_img": "in_particles"}
"""Keys that a job of single particles has under another name where it works on subtomograms."""

OWN_TABLE = "cryorefine_options"


def write_job(job: Job, options: Any) -> dict[str, Any]:
    """Return the tables of a job.star: block name -> simple list (dict) or loop (Columns)."""
    label, renamed = _label_of(job, options)
    known = KEYS.get(label)  # RELION has no form for jobs of our own
    texts = dict(known or {})
    own: dict[str, str] = {}
    for name, (_, description) in describe(type(options)).items():
        value = getattr(options, name)
        key = renamed.get(description.relion, description.relion)
        if key and (known is None or key in known):
            texts.update(_to_relion(key, value, texts))
        elif name != "output":
            own[name] = _text(value)
    if "use_direct_entries" in texts:
        texts["use_direct_entries"] = _text(options.optimisation_set is None)
    blocks: dict[str, Any] = {
        "job": {
            "rlnJobTypeLabel": label,
            "rlnJobIsContinue": int(getattr(options, "continue_from", None) is not None),
            "rlnJobIsTomo": int(label.endswith(_TOMO)),
        },
        "joboptions_values": _loop(dict(sorted(texts.items()))),
    }
    if own:
        blocks[OWN_TABLE] = _loop(own)
    return blocks


def _loop(texts: Mapping[str, str]) -> Columns:
    """Return keys and values as a loop."""
    from cryorefine.io.star import Columns

    return Columns(rlnJobOptionVariable=list(texts), rlnJobOptionValue=list(texts.values()))


def _label_of(job: Job, options: Any) -> tuple[str, Mapping[str, str]]:
    """Return RELION's label of a job with these options, and the keys that differ under it."""
    of_tomograms = any(getattr(options, name, None) is not None for name in ("optimisation_set", "tomograms"))
    if of_tomograms and job.relion_label + _TOMO in KEYS:
        return job.relion_label + _TOMO, _OF_TOMO
    return job.relion_label, {}


@dataclass(frozen=True)
class JobFile:
    """A job that a file describes.

    Attributes
    ----------
    name : str
        The job's command name, for :func:`cryorefine.jobs.registry.load`.
    options : dataclass instance
        Its options; ``output`` is the folder of the file unless another was asked for.
    notices : tuple of str
        What the file asks for that is left out and changes the result, one sentence each.
    """

    name: str
    options: Any
    notices: tuple[str, ...]


def read_job(path: Path, *, output: Path | None = None) -> JobFile:
    """Read a job.star of RELION 3.1, 4 or 5, or of our own.

    Files in it are looked for from the current folder, then from the folders above the job file,
    because RELION names them relative to the project.

    Raises
    ------
    UserError
        If it is no job file, of a job or with an option that is not supported here, or if a value
        cannot be read.
    """
    from cryorefine.io.star import read_star

    blocks = read_star(path)
    if "job" not in blocks or "joboptions_values" not in blocks:
        raise UserError(f"{path} is not a job file; give a job.star that RELION or cryorefine has written.")
    general = dict(blocks["job"])
    label = _label(general, path)
    name = next((n for n in JOBS if load(n).JOB.relion_label in (label, label.removesuffix(_TOMO))), None)
    if not label or name is None:
        supported = ", ".join(KEYS)
        raise UserError(
            f"{path} is a job of type {label or 'unknown'}; the types that can be run are {supported}."
        )
    texts = _table(blocks["joboptions_values"])
    _refuse_unsupported(texts, path, {field.relion for _, field in describe(load(name).Options).values()})
    continues = str(general.get("rlnJobIsContinue", 0)) in ("1", "true")
    if not continues or not texts.get("fn_cont"):
        texts.pop("fn_cont", None)
    if not texts.get("fn_mask") and not texts.get("in_optimisation"):
        # RELION passes the choice on only together with a mask.
        texts["do_solvent_fsc"] = "No"
    if "use_direct_entries" in texts:
        direct = texts["use_direct_entries"] == "Yes"
        for key in ("in_optimisation",) if direct else ("in_particles", "in_tomograms", "in_trajectories"):
            texts.pop(key, None)
    renamed = _OF_TOMO if label.endswith(_TOMO) else {}

    kind = load(name).Options
    own = _table(blocks[OWN_TABLE]) if OWN_TABLE in blocks else {}
    types = value_types(kind)
    values: dict[str, Any] = {"output": output or path.parent}
    for field, (_, description) in describe(kind).items():
        key = renamed.get(description.relion, description.relion) or _READ_ONLY.get(field, "")
        source, used = (texts, key) if key in texts else (own, field)
        if used not in source or field == "output":
            continue
        try:
            if used in _FORMS and source is texts:
                values[field] = _FORMS[used].from_relion(texts)
            else:
                values[field] = _value(source[used], *types[field])
        except (ValueError, IndexError):
            raise UserError(f"{path}: {used} is '{source[used]}', which cannot be read; mend it.") from None
        if isinstance(values[field], Path):
            values[field] = _resolve(values[field], path)
    notices = []
    if texts.get("other_args"):
        notices.append(f"The additional arguments of {path} are left out: {texts['other_args']}")
    return JobFile(name, kind(**values), tuple(notices))


def _label(general: Mapping[str, Any], path: Path) -> str:
    """Return RELION's label of the job; RELION 3.1 wrote numbers."""
    if "rlnJobTypeLabel" in general:
        return str(general["rlnJobTypeLabel"])
    return _NUMBERS.get(str(general.get("rlnJobType", "")), "")


_NUMBERS = {
    "10": "relion.refine3d",
    "12": "relion.maskcreate",
    "15": "relion.postprocess",
    "21": "relion.ctfrefine",
}
_READ_ONLY = {"reference_ctf_corrected": "ctf_corrected_ref", "fsc_mask": "fn_mask"}
"""Keys that RELION 3.1 and 4 had and RELION 5 would complain about."""


def _table(loop: Any) -> dict[str, str]:
    pairs = zip(loop["rlnJobOptionVariable"], loop["rlnJobOptionValue"], strict=True)
    return {str(key): "" if str(value) in ("nan", "<NA>") else str(value) for key, value in pairs}


def _refuse_unsupported(texts: Mapping[str, str], path: Path, known: set[str]) -> None:
    for key, what in (("do_helix", "helical processing"), ("do_blush", "Blush regularisation")):
        if texts.get(key) == "Yes" and key not in known:
            raise UserError(f"{path} asks for {what} ({key} Yes), which is not supported; set it to No.")


def _value(text: str, kind: type, optional: bool) -> Any:
    """Return the value that RELION writes as this text."""
    if kind is bool:
        if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("yes", "true", "1")
    if kind in (int, float):
        if not text and optional:
            return None
        number = float(text)
        if optional and number <= 0:
            return None  # "-1" is how RELION says: take it from the header, or leave it out
        if kind is int and not number.is_integer():
            raise ValueError(text)
        return kind(number)
    if kind is Path:
        return Path(text) if text else None
    return text


def _resolve(path: Path, job_file: Path) -> Path:
    if path.exists() and job_file.absolute().is_relative_to(Path.cwd()):
        return path
    return next((root / path for root in folders_of_names(job_file) if (root / path).exists()), path)


@dataclass(frozen=True)
class _Form:
    """How one key of RELION writes our value, where plain text will not do."""

    to_relion: Callable[[Any], Mapping[str, str]]
    from_relion: Callable[[Mapping[str, str]], Any]


def _to_relion(key: str, value: Any, defaults: Mapping[str, str]) -> Mapping[str, str]:
    if key in _FORMS:
        # A choice that goes with the value in one job is missing from the form of another.
        return {name: text for name, text in _FORMS[key].to_relion(value).items() if name in defaults}
    # A number that is not given (pixel size: take the header's) has RELION's own way to say so.
    return {key: defaults[key] if value is None else _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "" if value is None else str(value)


def _degrees(key: str) -> _Form:
    return _Form(
        to_relion=lambda value: {key: f"{value:g} degrees"},
        from_relion=lambda texts: float(texts[key].split()[0]),
    )


def _level(key: str) -> _Form:
    """How fine a value of the CTF is fitted; RELION has one more switch for all of them."""

    def from_relion(texts: Mapping[str, str]) -> str:
        return "no" if texts.get("do_ctf", "Yes") == "No" else texts[key].lower()

    return _Form(to_relion=lambda level: {key: level.capitalize()}, from_relion=from_relion)


def _optimiser_of(folder: Path | None) -> str:
    """Return the file by which RELION names the iteration to go on from."""
    if folder is None:
        return ""
    files = sorted(folder.glob("run_it*_optimiser.star"))
    return str(files[-1] if files else folder)


_FORMS: dict[str, _Form] = {
    "sampling": _degrees("sampling"),
    "auto_local_sampling": _degrees("auto_local_sampling"),
    **{key: _level(key) for key in ("do_defocus", "do_astig", "do_phase", "do_bfactor")},
    # RELION estimates trefoil only together with the beam tilt.
    "do_trefoil": _Form(
        to_relion=lambda trefoil: {"do_trefoil": _text(trefoil)},
        from_relion=lambda texts: texts["do_trefoil"] == "Yes" and texts.get("do_tilt") == "Yes",
    ),
    "do_pad1": _Form(
        to_relion=lambda padding: {"do_pad1": _text(padding == 1)},
        from_relion=lambda texts: 1 if texts["do_pad1"] == "Yes" else 2,
    ),
    # RELION's way to say that one image is enough.
    "min_frames": _Form(
        to_relion=lambda frames: {"min_frames": _text(frames)},
        from_relion=lambda texts: max(1, int(texts["min_frames"])),
    ),
    "fn_cont": _Form(
        to_relion=lambda folder: {"fn_cont": _optimiser_of(folder)},
        from_relion=lambda texts: (
            Path(texts["fn_cont"]).parent if texts["fn_cont"].endswith(".star") else Path(texts["fn_cont"])
        ),
    ),
    "adhoc_bfac": _Form(
        to_relion=lambda bfactor: (
            {"do_adhoc_bfac": "No"}
            if bfactor is None
            # RELION takes one of the two, never both.
            else {"do_auto_bfac": "No", "do_adhoc_bfac": "Yes", "adhoc_bfac": _text(bfactor)}
        ),
        from_relion=lambda texts: (
            float(texts["adhoc_bfac"]) if texts.get("do_adhoc_bfac", "Yes") == "Yes" else None
        ),
    ),
}
