"""Particle images, read lazily from stacks by reference (``000012@folder/stack.mrcs``)."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.mrc import MrcLayout, read_layout


def parse_reference(reference: str) -> tuple[int | None, str]:
    """Split an image reference into its number and its file.

    Parameters
    ----------
    reference : str
        ``NUMBER@FILE`` with numbers from 1, or ``FILE``; a format suffix as in ``file.ctf:mrcs`` is removed.

    Returns
    -------
    number : int or None
        Image number from 1; None without one.
    file : str
        The file's name as written.

    Raises
    ------
    UserError
        When what stands before the ``@`` is no number.
    """
    before, at, file = reference.partition("@")
    if not at:
        before, file = "", reference
    for suffix in (":mrcs", ":mrc"):
        file = file.removesuffix(suffix)
    if not at:
        return None, file
    if not (before.isascii() and before.isdigit()):
        raise UserError(
            f"{reference} is no image reference: {before!r} before the @ is no number; write NUMBER@FILE."
        )
    return int(before), file


class ImageReader:
    """Reads images from memory-mapped MRC stacks; safe to share by threads and to pickle.

    Parameters
    ----------
    root : path-like
        Folder that relative file names start from (the project directory).
    max_open : int
        How many stacks stay mapped; the one used longest ago gives way.
    """

    def __init__(self, root: str | os.PathLike[str] = ".", max_open: int = 32) -> None:
        # Absolute, because a worker that unpickles the reader may run in another folder.
        self.root = Path(root).absolute()
        self.max_open = max_open
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[MrcLayout, NDArray[Any]]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "max_open": self.max_open}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"], state["max_open"])  # type: ignore[misc]

    def read(self, references: Sequence[str]) -> NDArray[np.float32]:
        """Read images of one size.

        Parameters
        ----------
        references : sequence of str
            One image each, in any order and from any number of files.

        Returns
        -------
        numpy.ndarray
            float32, shape (n, y, x).

        Raises
        ------
        UserError
            When a file is missing or foreign, an image number lies outside its stack, images differ in
            size, or an image holds NaN or infinite values.
        """
        if len(references) == 0:
            return np.zeros((0, 0, 0), dtype=np.float32)
        height, width = self.shape(references[0])
        images = np.empty((len(references), height, width), dtype=np.float32)
        for image, reference in zip(images, references, strict=True):
            section, stack = self._locate(reference)
            if stack.shape[1:] != (height, width):
                raise UserError(
                    f"{reference} has {stack.shape[2]} x {stack.shape[1]} pixels but {references[0]} has "
                    f"{width} x {height}; images of one set must have one size."
                )
            image[...] = stack[section]
            if not np.isfinite(image).all():
                raise UserError(f"{reference} holds NaN or infinite values; remove this image from the set.")
        return images

    def read_stack(self, reference: str) -> NDArray[np.float32]:
        """Read every image of a file, e.g. the tilt images of one pseudo-subtomogram.

        Parameters
        ----------
        reference : str
            File name without an image number.

        Returns
        -------
        numpy.ndarray
            float32, shape (n, y, x), or (z, y, x) of a volume.

        Raises
        ------
        UserError
            When the file is missing or foreign, or holds NaN or infinite values.
        """
        _, stack = self._mapped(parse_reference(reference)[1], reference)
        images = stack.astype(np.float32)
        if not np.isfinite(images).all():
            raise UserError(f"{reference} holds NaN or infinite values; remove these images from the set.")
        return images

    def shape(self, reference: str) -> tuple[int, int]:
        """Return the size (y, x) of an image in px."""
        _, stack = self._mapped(parse_reference(reference)[1], reference)
        return stack.shape[1], stack.shape[2]

    def count(self, reference: str) -> int:
        """Return how many images (or sections) the file of a reference holds."""
        _, stack = self._mapped(parse_reference(reference)[1], reference)
        return stack.shape[0]

    def pixel_size(self, reference: str) -> float:
        """Return the pixel size in A that the file's header gives; 0 when it gives none."""
        layout, _ = self._mapped(parse_reference(reference)[1], reference)
        return layout.pixel_size

    def _locate(self, reference: str) -> tuple[int, NDArray[Any]]:
        """Return the section (from 0) and the mapped stack of a reference."""
        number, file = parse_reference(reference)
        _, stack = self._mapped(file, reference)
        if number is None:
            if stack.shape[0] != 1:
                raise UserError(
                    f"{reference} holds {stack.shape[0]} images and the reference does not say which; "
                    "write NUMBER@FILE."
                )
            return 0, stack
        if not 1 <= number <= stack.shape[0]:
            raise UserError(
                f"{reference} asks for image {number} but the stack holds {stack.shape[0]} images; "
                "use the STAR file that belongs to this stack."
            )
        return number - 1, stack

    def _mapped(self, file: str, reference: str) -> tuple[MrcLayout, NDArray[Any]]:
        with self._lock:
            entry = self._open.get(file)
            if entry is not None:
                self._open.move_to_end(file)
                return entry
        path = self.root / file
        if not path.is_file():
            raise UserError(
                f"{reference} is missing: there is no file {path}; run from the project directory or "
                "restore the file."
            )
        layout = read_layout(path)
        entry = (layout, layout.memory_map())
        with self._lock:
            self._open[file] = entry
            # An evicted stack stays mapped for as long as another thread still reads from it.
            while len(self._open) > self.max_open:
                self._open.popitem(last=False)
        return entry
