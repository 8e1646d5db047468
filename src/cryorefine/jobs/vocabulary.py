"""Options that several jobs have, so that one name, label and meaning serves all of them."""

from __future__ import annotations

from typing import Any

from cryorefine.compute.array_module import is_device
from cryorefine.errors import UserError
from cryorefine.jobs.base import option


def half_map(relion: str = "") -> Any:
    """Make the option that names one of two half maps."""
    return option(
        label="One of the 2 unfiltered half-maps",
        help="Either unfiltered half map of a refinement; the other one is found by exchanging half1 and "
        "half2 in the name of the file.",
        kind="half_map",
        relion=relion,
    )


def calibrated_pixel_size(relion: str = "") -> Any:
    """Make the option of a pixel size that overrides the header's."""
    return option(
        None,
        label="Calibrated pixel size",
        help="The pixel size, if calibration has shown that it differs from that in the file.",
        unit="A/px",
        step=0.001,
        relion=relion,
    )


def mtf(relion: str = "") -> Any:
    """Make the option that names a detector's modulation transfer function."""
    return option(
        None,
        label="MTF of the detector (STAR file)",
        help="Modulation transfer function of the detector; the map is divided by it.",
        group="Sharpen",
        kind="star",
        relion=relion,
    )


def mtf_pixel_size(relion: str = "") -> Any:
    """Make the option of the pixel size that a modulation transfer function is given for."""
    return option(
        1.0,
        label="Original detector pixel size",
        help="Pixel size of the detector for which the MTF holds, that is before any binning. "
        "0 or less means that of the map.",
        unit="A/px",
        group="Sharpen",
        step=0.001,
        relion=relion,
    )


def threads() -> Any:
    """Make the option of how many processor cores to use."""
    return option(
        0,
        label="Number of threads",
        help="How many processor cores to use; 0 means all of them.",
        group="Compute",
        minimum=0,
        smallest="all",
        maximum=1024,
        step=1,
    )


def device() -> Any:
    """Make the option of where to compute."""
    return option(
        "cpu",
        label="Device",
        help="Where to compute: cpu, gpu (all GPUs), gpu:0 or gpu:0,1 (these) or auto (GPUs if there are "
        "any).",
        group="Compute",
    )


def check_device(name: str) -> None:
    """Refuse what is no name of a device.

    Raises
    ------
    UserError
        If it is none.
    """
    if not is_device(name):
        raise UserError(f"--device {name} is not a device; give cpu, auto, gpu, or gpu:0,1 and the like.")


NO_CLUSTER = "none"


def scheduler() -> Any:
    """Make the option that names a running Dask scheduler."""
    return option(
        "",
        label="Dask scheduler",
        help="Address of a Dask scheduler whose workers share the work, e.g. tcp://node1:8786; empty to "
        "work without one.",
        group="Compute",
    )


def cluster() -> Any:
    """Make the option of a cluster that the job starts and stops by itself."""
    return option(
        "",
        label="Start a cluster",
        help="Share the work between processes that the job starts and stops: local:4 for four on this "
        "machine, or slurm:jobs=20,cores=8,memory=32GB,queue=NAME,walltime=12:00:00 for jobs of a queue. "
        "none for this machine's threads, where a refinement that goes on began with workers.",
        group="Compute",
    )


def check_workers(scheduler: str, cluster: str) -> None:
    """Refuse what is neither a scheduler's address nor a cluster, and both together.

    Raises
    ------
    UserError
        If it is so.
    """
    from cryorefine.compute.cluster import parse_cluster

    if scheduler and "://" not in scheduler:
        raise UserError(f"--scheduler {scheduler} is not a Dask address; give one like tcp://node1:8786.")
    if scheduler and cluster:
        raise UserError("--scheduler and --cluster contradict each other; leave one of them out.")
    if cluster not in ("", NO_CLUSTER):
        parse_cluster(cluster)
