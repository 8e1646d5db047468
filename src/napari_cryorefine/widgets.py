"""The forms that napari's menus open, one class for each job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QPushButton

from cryorefine.errors import UserError
from cryorefine.jobs.registry import load
from napari_cryorefine.forms import JobForm
from napari_cryorefine.results import source_steps

if TYPE_CHECKING:
    import napari.viewer

    from cryorefine.tomo.suggestions import Suggestion
    from napari_cryorefine.runs import Outcome

EXPLORER_DOCK = "Try masks and fits"


class Refine3DForm(JobForm):
    """Refine a map and the poses of its particles."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        from cryorefine.jobs.suggest import for_refinement
        from napari_cryorefine.suggest_tool import SuggestTool

        super().__init__(load("refine3d"), viewer)

        def suggest(values: dict[str, Any], diameter: float) -> dict[str, Suggestion]:
            names = ("optimisation_set", "reference", "initial_lowpass")
            entries, reference, lowpass = (values[name] for name in names)
            return for_refinement(entries, reference, diameter, lowpass)

        self.suggest_tool = SuggestTool(self.page, suggest, diameter="mask_diameter")
        self.add_tool(self.suggest_tool)

    def close_down(self) -> None:
        """Stop what is being worked out."""
        super().close_down()
        self.suggest_tool.close_down()


class _SubtomogramForm(JobForm):
    """What the forms of extraction and reconstruction have in common."""

    def __init__(self, name: str, viewer: napari.viewer.Viewer) -> None:
        from cryorefine.jobs.suggest import for_extraction
        from napari_cryorefine.suggest_tool import SuggestTool

        super().__init__(load(name), viewer)

        def suggest(values: dict[str, Any], diameter: float) -> dict[str, Suggestion]:
            entries, tomograms = values["optimisation_set"], values["tomograms"]
            return for_extraction(entries, tomograms, diameter, values["binning"])

        self.suggest_tool = SuggestTool(self.page, suggest)
        self.add_tool(self.suggest_tool)

    def close_down(self) -> None:
        """Stop what is being worked out."""
        super().close_down()
        self.suggest_tool.close_down()


class PseudoSubtomoForm(_SubtomogramForm):
    """Cut particles out of tilt series."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("pseudo-subtomo", viewer)


class ReconstructParticleForm(_SubtomogramForm):
    """Make half maps and a map from subtomograms."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("reconstruct-particle", viewer)


class MaskCreateForm(JobForm):
    """Make a solvent mask from a map."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        from napari_cryorefine.mask_tool import MaskTool

        super().__init__(load("mask-create"), viewer)
        self.tool = MaskTool(self.page, viewer, self._layers)
        self.add_tool(self.tool.native)
        self.tool.preview.changed.connect(lambda shown: self._show_source() if shown else None)

    def close_down(self) -> None:
        """Remove the preview and stop its worker."""
        super().close_down()
        self.tool.close_down()

    def _show_results(self, outcome: Outcome) -> None:
        self.tool.preview.value = False  # the mask itself takes its place
        super()._show_results(outcome)
        self._show_source()

    def _show_source(self) -> None:
        """Show the map that the mask is made from, which is what the mask is judged by."""
        path = self.page.readable()["input"]
        if self._viewer is not None and path is not None and path.is_file():
            self._shower.show(source_steps(self._viewer, path))


class PostProcessForm(JobForm):
    """Sharpen a map and tell its resolution."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("postprocess"), viewer)
        self.explore_button = QPushButton("Try masks and fits…")
        self.explore_button.setToolTip(
            "Open FSC and Guinier plots that follow the mask and the range of the fit, before any run"
        )
        self.explore_button.clicked.connect(lambda: self.explore())
        self.add_tool(self.explore_button)

    def explore(self) -> None:
        """Open the dock in which masks and fits are tried, with what stands on the form."""
        from napari_cryorefine.explorer import Explorer

        explorer: Any = self._viewer.window.dock_widgets.get(EXPLORER_DOCK) or Explorer(self._viewer)
        try:
            explorer.start(self.page, self._layers)
        except UserError as error:
            self.complain(str(error))
            return
        if EXPLORER_DOCK not in self._viewer.window.dock_widgets:
            self._viewer.window.add_dock_widget(explorer, name=EXPLORER_DOCK, area="bottom")


class CtfRefineForm(JobForm):
    """Refine defocus, beam tilt and higher aberrations."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(load("ctf-refine"), viewer)


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
