"""The jobs: each is the same thing in napari, in a terminal and in a script."""

from cryorefine.jobs.base import finish

__all__ = ["finish"]
