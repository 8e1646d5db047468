"""PostProcess tried out in a dock: masks by choice, thresholds and fit ranges by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from cryorefine.errors import UserError
from cryorefine.io.mrc import Map
from napari_cryorefine.latest import Latest
from napari_cryorefine.layer_files import LayerFiles
from napari_cryorefine.layers import add_map
from napari_cryorefine.turns import Turns

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from cryorefine.jobs.postprocess import Options
    from cryorefine.jobs.postprocess_explore import Tried
    from napari_cryorefine.page import OptionsPage
    from napari_cryorefine.plots import CurvePlot

NO_MASK = "No mask"
ROLE = "PostProcess exploration"
_WORKING = "Working…"


@dataclass(frozen=True)
class Wish:
    """What is to be tried: the job's options, and a mask from a file or a layer in place of theirs."""

    options: Options
    mask: Path | Map | None
    mask_name: str
    show_map: bool


class Explorer(QWidget):
    """FSC and Guinier plots of the half maps on a form, which follow what is changed in the dock.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the sharpened map is shown and masks may be taken from.

    Attributes
    ----------
    fsc, guinier : CurvePlot or None
        The plots, once they are made.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._latest = Latest(_Trier())
        self._latest.made.connect(self._show)
        self._latest.failed.connect(self._complain)
        self._latest.idle.connect(self._on_idle)
        self.fsc: CurvePlot | None = None
        self.guinier: CurvePlot | None = None
        self._tried: Tried | None = None
        self._build()
        self._turns = Turns(self)
        # Loaded in a thread, then made one after the other: together they would keep the window waiting.
        self._loader = Latest(_load_plots, self)
        self._loader.idle.connect(self._build_plots)
        self._loader.ask(None)
        viewer.events.theme.connect(self._paint)
        self.destroyed.connect(self._latest.forget)

    def changeEvent(self, event: QEvent) -> None:
        """Stop when napari closes the dock: it takes the widget out and leaves it without a parent."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._latest.forget()

    def sizeHint(self) -> QSize:
        """Ask for the plots, which are made when the dock is there."""
        return QSize(860, 340)

    @property
    def busy(self) -> bool:
        """Whether something is still being made."""
        return self._latest.busy or self._loader.busy or self._turns.busy

    def start(self, page: OptionsPage, files: LayerFiles) -> None:
        """Take half maps, mask and ways to sharpen from a form, and show what they make.

        Parameters
        ----------
        page : OptionsPage
            The options of PostProcess; what was found can be put back there.
        files : LayerFiles
            The maps of layers.

        Raises
        ------
        UserError
            If the form is not filled in.
        """
        self._options = page.job_options(mask=None)
        self._page, self._files = page, files
        page.native.destroyed.connect(self._on_form_closed)
        self.use_button.setEnabled(True)
        self._list_masks(page["mask"].value)
        self.take_mask()

    def take_mask(self) -> None:
        """Try the mask that is chosen, as it is now: a layer may have been painted in."""
        mask: Path | None = self.mask.currentData()
        try:
            self._mask = None if mask is None else self._files.promised(mask) or mask
        except UserError as error:
            self._complain(error)
            return
        self.ask()

    def ask(self) -> None:
        """Try what stands in the dock."""
        self.words.setText(_WORKING)
        self._latest.ask(Wish(self._options, self._mask, self.mask.currentText(), self.show_map.isChecked()))

    def use(self) -> None:
        """Put the mask and the range of the fit on the form."""
        names = ("autob_lowest_resolution", "autob_highest_resolution")
        values = {name: getattr(self._options, name) for name in names}
        self._page.update(mask=self.mask.currentData(), **values)
        self.words.setText("The form has this mask and this range now; Run makes the files.")

    def _on_form_closed(self) -> None:
        self.use_button.setEnabled(False)

    def _show(self, piece: Tried | Map) -> None:
        if isinstance(piece, Map):
            layer = add_map(self._viewer, piece, name="sharpened (tried out)", role=ROLE)
            layer.visible = True
            return
        self._tried, report = piece, piece.report
        self._turns.add(self._draw_fsc, self._draw_guinier)
        error = report.fit.b_factor_error if report.fit is not None else None
        told = f"B-factor {report.b_factor:.0f}" + (f" ± {error:.0f}" if error is not None else "")
        self.figures.setText(f"<b>{report.resolution:.2f} Å</b> &nbsp; {told} Å²")
        self._doubts = " ".join(self._page.by_labels(doubt) for doubt in piece.doubts)

    def _draw_fsc(self) -> None:
        if self.fsc is not None and self._tried is not None:
            self.fsc.show_curve(self._tried.fsc)

    def _draw_guinier(self) -> None:
        if self.guinier is None or self._tried is None:
            return
        self.guinier.show_curve(self._tried.guinier)
        if self._tried.report.fit is not None:
            options = self._options
            self.guinier.show_range(options.autob_lowest_resolution, options.autob_highest_resolution)

    def _on_range(self, lowest: float, highest: float) -> None:
        self._options = dataclasses.replace(
            self._options,
            autob_lowest_resolution=round(lowest, 2),
            autob_highest_resolution=round(highest, 2),
        )
        self.ask()

    def _on_idle(self) -> None:
        if self.words.text() == _WORKING:
            self.words.setText(self._doubts)

    def _complain(self, error: Exception) -> None:
        self.words.setText(self._page.by_labels(str(error)))

    def _list_masks(self, wanted: Path | None) -> None:
        """Offer the maps of all layers and the mask on the form; keep what is chosen unless told."""
        found = self._files.offer(self._options.output)
        if wanted is not None and wanted.absolute() not in {path.absolute() for path in found.values()}:
            found = {wanted.name: wanted} | found
        self.mask.clear()
        self.mask.addItem(NO_MASK, None)
        for name, path in found.items():
            self.mask.addItem(name, path)
            if wanted is not None and path.absolute() == wanted.absolute():
                self.mask.setCurrentIndex(self.mask.count() - 1)

    def _build(self) -> None:
        self.mask = _Choice(lambda: self._list_masks(self.mask.currentData()))
        self.mask.setToolTip("The mask to be tried: any map that is shown as a layer")
        self.mask.activated.connect(lambda: self.take_mask())
        self.show_map = QCheckBox("Sharpened map")
        self.show_map.setToolTip("Show the sharpened map as a layer that follows the fit")
        self.show_map.setChecked(True)
        self.show_map.toggled.connect(lambda: self.ask())
        self.use_button = QPushButton("Use in form")
        self.use_button.setToolTip("Put this mask and this range of the fit on the form")
        self.use_button.clicked.connect(lambda: self.use())
        self.figures, self.words, self._doubts = QLabel(), QLabel(), ""
        self.words.setWordWrap(True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        top = QHBoxLayout()
        top.addWidget(QLabel("Mask"))
        for widget in (self.mask, self.show_map, self.figures):
            top.addWidget(widget)
        top.addStretch(1)
        top.addWidget(self.use_button)
        self._plots = QHBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(top)
        layout.addLayout(self._plots, 1)
        layout.addWidget(self.words)

    def _build_plots(self) -> None:
        self._turns.add(self._build_fsc, self._build_guinier, self._draw_fsc, self._draw_guinier)

    def _build_fsc(self) -> None:
        from napari_cryorefine.plots import CurvePlot

        self.fsc = CurvePlot("FSC", self._viewer.theme)
        self._plots.insertWidget(0, self.fsc, 1)

    def _build_guinier(self) -> None:
        from napari_cryorefine.plots import CurvePlot

        self.guinier = CurvePlot("Guinier", self._viewer.theme)
        self.guinier.range_moved.connect(self._on_range)
        self._plots.addWidget(self.guinier, 1)

    def _paint(self) -> None:
        for plot in (self.fsc, self.guinier):
            if plot is not None:
                plot.paint(self._viewer.theme)


class _Choice(QComboBox):
    """A choice that is listed anew whenever it is opened."""

    def __init__(self, refresh: Callable[[], None]) -> None:
        super().__init__()
        self._refresh = refresh

    def showPopup(self) -> None:
        """List what there is, then open."""
        self._refresh()
        super().showPopup()


def _load_plots(_: None) -> Iterator[None]:
    import napari_cryorefine.plots  # noqa: F401

    yield None


class _Trier:
    """Tries wishes in a thread, and keeps half maps and masks as long as they serve."""

    def __init__(self) -> None:
        self._maps_key: Any = None
        self._mask_key: Any = None

    def __call__(self, wish: Wish) -> Iterator[Tried | Map]:
        """Yield the curves and figures, then the sharpened map if it is wanted."""
        from cryorefine.jobs.postprocess_explore import Exploration

        options = wish.options
        maps_key = (options.half_map, _changed(options.half_map), options.pixel_size)
        if maps_key != self._maps_key:
            self._maps_key = self._mask_key = None
            self._exploration = Exploration(options.half_map, options.pixel_size)
            self._maps_key = maps_key
        source = wish.mask
        mask_key = (source, _changed(source)) if isinstance(source, Path) else id(source and source.data)
        if mask_key != self._mask_key:
            self._mask_key = None
            self._mask, self._source = self._exploration.mask(source, wish.mask_name), source
            self._mask_key = mask_key
        name = Path(wish.mask_name) if source is not None else None
        tried = self._exploration.try_out(options, self._mask, name)
        yield tried
        if wish.show_map:
            yield self._exploration.sharpened(tried)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
