"""What RELION calls kinds of jobs and files in words (4 and 5) and in numbers (3)."""

from __future__ import annotations

STATES = ("Running", "Scheduled", "Succeeded", "Failed", "Aborted")
"""Of a job, in the order of RELION 3's numbers."""

EXTERNAL = "99"
"""Number of a job of another program."""

_PROCESS_NUMBERS = {
    "relion.import": "0",
    "relion.motioncorr": "1",
    "relion.ctffind": "2",
    "relion.manualpick": "3",
    "relion.autopick": "4",
    "relion.extract": "5",
    "relion.select": "7",
    "relion.class2d": "8",
    "relion.class3d": "9",
    "relion.refine3d": "10",
    "relion.maskcreate": "12",
    "relion.joinstar": "13",
    "relion.subtract": "14",
    "relion.postprocess": "15",
    "relion.localres": "16",
    "relion.initialmodel": "18",
    "relion.multibody": "19",
    "relion.polish": "20",
    "relion.ctfrefine": "21",
    "relion.external": EXTERNAL,
}

_NODE_NUMBERS = (
    ("ParticleGroupMetadata", "", "3"),
    ("OptimiserData", "", "9"),
    ("DensityMap", ".halfmap", "10"),
    ("DensityMap", ".postprocess", "11"),
    ("DensityMap", ".localresfiltered", "11"),
    ("DensityMap", "", "6"),
    ("Mask3D", "", "7"),
    ("Image3D", ".localresmap", "12"),
    ("LogFile", "", "13"),
    ("ProcessData", ".postprocess", "14"),
)
"""How the label of a file begins, what else it holds, and the number."""


def process_number(label: str) -> str:
    """Return the number of a kind of job; a kind that RELION 3 does not have counts as external."""
    while label:
        if label in _PROCESS_NUMBERS:
            return _PROCESS_NUMBERS[label]
        label = label.rpartition(".")[0]  # relion.ctfrefine.anisomag is a relion.ctfrefine
    return EXTERNAL


def process_label(number: str) -> str:
    """Return the label of a kind of job, empty for a number that is not known."""
    return next((label for label, known in _PROCESS_NUMBERS.items() if known == number), "")


def node_number(label: str) -> str:
    """Return the number of a kind of file, empty where RELION 3 has no such kind."""
    for begin, within, number in _NODE_NUMBERS:
        if label.startswith(begin) and within in label:
            return number
    return ""
