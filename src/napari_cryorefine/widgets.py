"""The forms that napari's menus open, one class for each job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryorefine.jobs.registry import load
from napari_cryorefine.forms import JobForm

if TYPE_CHECKING:
    import napari.viewer


class Refine3DForm(JobForm):
    """Refine a map and the poses of its particles."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("refine3d"), viewer)


class MaskCreateForm(JobForm):
    """Make a solvent mask from a map."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        from napari_cryorefine.mask_tool import MaskTool

        super().__init__(load("mask-create"), viewer)
        self.tool = MaskTool(self.page, viewer, self._layers)
        self.add_tool(self.tool.native)


class PostProcessForm(JobForm):
    """Sharpen a map and tell its resolution."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("postprocess"), viewer)


class DirectionalFscForm(JobForm):
    """Measure the resolution in every direction."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("directional-fsc"), viewer)


class OrientationsForm(JobForm):
    """Show how the views of particles are spread."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("orientations"), viewer)


class LocalResolutionForm(JobForm):
    """Measure the resolution place by place."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("local-resolution"), viewer)


class ConfidenceForm(JobForm):
    """Tell real density from noise."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("confidence"), viewer)


class RescaleMapForm(JobForm):
    """Rescale, rebox and filter a map."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("image-handler"), viewer)
