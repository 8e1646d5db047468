"""The dock that moves the level of a surface coloured by local resolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container, Label, Slider

from cryorefine.maps.density import volume_of
from cryorefine.maps.preview import threshold_ladder
from napari_cryorefine.boxes import NumberEdit
from napari_cryorefine.latest import Latest
from napari_cryorefine.local_resolution_layers import ColouredMap, ColouredMesh, show_mesh
from napari_cryorefine.progress import volume_text

if TYPE_CHECKING:
    import napari
    from napari.layers import Surface

LEVEL_DOCK = "Level of the surface"
STEPS = 1000
_SAMPLED = 96  # box in which the levels of the slider are found


def show_level_panel(viewer: napari.Viewer, surface: Surface, source: ColouredMap) -> None:
    """Let the dock move this surface; the dock is made if it is not there."""
    panel: Any = viewer.window.dock_widgets.get(LEVEL_DOCK)
    if panel is None:
        panel = LevelPanel()
        dock = viewer.window.add_dock_widget(panel, name=LEVEL_DOCK, area="left")
        dock.setFixedHeight(dock.sizeHint().height())
    panel.follow(surface, source)


class LevelPanel(Container[Any]):
    """A slider and a number for the level of a surface; steps of the slider are even in volume.

    Scripted like any container of magicgui: ``panel.level.value = 0.05``.
    """

    def __init__(self) -> None:
        self.slider = Slider(
            name="slider",
            max=STEPS,
            readout=False,
            tooltip="Moves the density that the surface is drawn at: to the right it encloses less.",
        )
        self.level = NumberEdit(name="level", min=-1e6, max=1e6, step=0.001, tooltip="The density itself")
        self.told = Label(name="told")
        row = Container(widgets=[self.slider, self.level], layout="horizontal", labels=False, name="row")
        row.margins = (0, 0, 0, 0)
        super().__init__(widgets=[row, self.told], labels=False)
        self._surface: Any = None
        self._latest = Latest(self._work)
        self._latest.made.connect(self._show)
        self._latest.failed.connect(lambda error: self._tell(str(error)))
        self.slider.changed.connect(self._on_slider)
        self.level.changed.connect(self._on_level)
        self.native.destroyed.connect(self._latest.forget)

    @property
    def busy(self) -> bool:
        """Whether a surface is being made."""
        return self._latest.busy

    def follow(self, surface: Surface, source: ColouredMap) -> None:
        """Move the level of another surface from now on."""
        self._surface, self._source = surface, source
        step = max(1, -(-max(source.density.data.shape) // _SAMPLED))
        self._sample = source.density.data[::step, ::step, ::step]
        self._levels = threshold_ladder(self._sample, STEPS + 1)
        self._put(surface.metadata["level"])

    def _put(self, level: float) -> None:
        with self.level.changed.blocked(), self.slider.changed.blocked():
            self.level.value = float(f"{level:.4g}")
            self.slider.value = min(int(np.searchsorted(self._levels, level)), STEPS)
        source = self._source
        voxel = source.density.pixel_size * (source.density.data.size / self._sample.size) ** (1 / 3)
        self._tell(volume_text(volume_of(self._sample >= level, voxel)))

    def _on_slider(self, step: int) -> None:
        if self._surface is not None:
            self.level.value = float(f"{self._levels[step]:.4g}")

    def _on_level(self, level: float) -> None:
        if self._surface is not None:
            self._put(level)
            self._latest.ask((self._source, level))

    def _work(self, request: tuple[ColouredMap, float]) -> Iterator[ColouredMesh]:
        """Make a coarse surface for as long as the slider moves, and the fine one when it rests."""
        source, level = request
        yield source.mesh(level, coarse=True)
        yield source.mesh(level)

    def _show(self, mesh: ColouredMesh) -> None:
        show_mesh(self._surface, mesh)

    def _tell(self, text: str) -> None:
        self.told.value = text
