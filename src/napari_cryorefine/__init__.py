"""Cryo-EM refinement in napari: the forms, layers, plots and readers of the cryorefine jobs.

For scripts: ``open_results(viewer, "PostProcess/job003")`` shows what a job made; ``add_map``,
``add_half_maps``, ``add_mask``, ``add_stack`` and ``add_particles`` show single files. All of them take a
``napari.Viewer`` or a ``ViewerModel``.
"""

from napari_cryorefine.layers import add_half_maps, add_map, add_mask, add_particles, add_stack
from napari_cryorefine.results import open_results

__all__ = ["add_half_maps", "add_map", "add_mask", "add_particles", "add_stack", "open_results"]
