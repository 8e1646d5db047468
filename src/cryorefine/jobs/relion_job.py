"""RELION's job files: what they call our options, and how they write the values.

Keys and defaults are those of RELION 5's forms. Every key of a job is written, so that RELION's
own interface can load the file; what RELION has no key for stands in a table of our own beside
RELION's, which RELION passes over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryorefine.jobs.base import Job, describe

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
}
"""RELION's label of a job -> each key of its form and the default."""

OWN_TABLE = "cryorefine_options"


def write_job(job: Job, options: Any) -> dict[str, Any]:
    """Return the tables of a job.star: block name -> simple list (dict) or loop (DataFrame)."""
    import pandas

    texts = dict(KEYS[job.relion_label])
    own: dict[str, str] = {}
    for name, (_, description) in describe(type(options)).items():
        value = getattr(options, name)
        if description.relion:
            texts.update(_to_relion(description.relion, value, texts))
        elif name != "output":
            own[name] = _text(value)
    columns = ("rlnJobOptionVariable", "rlnJobOptionValue")
    blocks: dict[str, Any] = {
        "job": {
            "rlnJobTypeLabel": job.relion_label,
            "rlnJobIsContinue": int(getattr(options, "continue_from", None) is not None),
            "rlnJobIsTomo": 0,
        },
        "joboptions_values": pandas.DataFrame(sorted(texts.items()), columns=columns, dtype=object),
    }
    if own:
        blocks[OWN_TABLE] = pandas.DataFrame(list(own.items()), columns=columns, dtype=object)
    return blocks


@dataclass(frozen=True)
class _Form:
    """How one key of RELION writes our value, where plain text will not do."""

    to_relion: Callable[[Any], Mapping[str, str]]


def _to_relion(key: str, value: Any, defaults: Mapping[str, str]) -> Mapping[str, str]:
    if key in _FORMS:
        return _FORMS[key].to_relion(value)
    # A number that is not given (pixel size: take the header's) has RELION's own way to say so.
    return {key: defaults[key] if value is None else _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "" if value is None else str(value)


def _degrees(key: str) -> _Form:
    return _Form(lambda value: {key: f"{value:g} degrees"})


def _optimiser_of(folder: Path | None) -> str:
    """Return the file by which RELION names the iteration to go on from."""
    if folder is None:
        return ""
    files = sorted(folder.glob("run_it*_optimiser.star"))
    return str(files[-1] if files else folder)


_FORMS: dict[str, _Form] = {
    "sampling": _degrees("sampling"),
    "auto_local_sampling": _degrees("auto_local_sampling"),
    "do_pad1": _Form(lambda padding: {"do_pad1": _text(padding == 1)}),
    "fn_cont": _Form(lambda folder: {"fn_cont": _optimiser_of(folder)}),
    "adhoc_bfac": _Form(
        lambda bfactor: (
            {"do_adhoc_bfac": "No"}
            if bfactor is None
            else {"do_adhoc_bfac": "Yes", "adhoc_bfac": _text(bfactor)}
        )
    ),
}
