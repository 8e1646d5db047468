"""What the image handler measures, told in sentences and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.jobs.base import Curve, Event, Notice
from cryorefine.maps import fourier, fsc, image_operations, sharpen
from cryorefine.maps.shells import shell_frequencies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryorefine.jobs.image_handler import Options


def measure(options: Options, images: list[NDArray[Any]], pixel_size: float) -> Iterator[Event]:
    """Yield what was asked for, for each image."""
    for number, image in enumerate(images, 1):
        name = str(options.input) if len(images) == 1 else f"{number}@{options.input}"
        if options.stats:
            size = " x ".join(str(n) for n in image.shape[::-1])
            yield Notice(
                f"{name}: {size} px of {pixel_size:g} A, mean {image.mean(dtype=np.float64):.6g}, standard "
                f"deviation {image.std(dtype=np.float64):.6g}, lowest {image.min():.6g}, highest "
                f"{image.max():.6g}."
            )
        if options.com:
            centre = image_operations.centre_of_mass(image)[::-1]
            words = ", ".join(f"{axis} {value:.5f}" for axis, value in zip("xyz", centre, strict=False))
            yield Notice(f"{name}: the centre of mass lies at {words} px from the centre of the box.")
        if options.fsc is None and options.cos_phase is None and not options.power and not options.guinier:
            continue
        if len(set(image.shape)) != 1:
            raise UserError(f"{name} is neither a cube nor a square; give --new-box.")
        yield from _spectra(options, name, image, pixel_size)


def _spectra(options: Options, name: str, image: NDArray[Any], pixel_size: float) -> Iterator[Event]:
    from cryorefine.jobs.image_handler_steps import other_image

    size = image.shape[-1]
    frequency = shell_frequencies(size, pixel_size)
    curves: dict[str, NDArray[np.float64]] = {}
    if options.fsc is not None:
        other = other_image(options.fsc, image.shape)
        curves["FSC"] = fsc.fourier_shell_correlation(image, other, options.threads)
        for threshold in (fsc.GOLD_STANDARD, 0.5):
            at = fsc.resolution(curves["FSC"], size, pixel_size, threshold)
            yield Notice(f"{name}: the FSC with {options.fsc} stays above {threshold:g} up to {at:.2f} A.")
    if options.cos_phase is not None:
        other = other_image(options.cos_phase, image.shape)
        cosine = image_operations.phase_cosine(image, other, options.threads)
        curves["cosine of the phase difference"] = cosine
    if options.power:
        curves["power"] = image_operations.power_spectrum(image, options.threads)
    if options.guinier and image.ndim == 3:
        points = sharpen.Amplitudes(fourier.forward(image, options.threads), options.threads).guinier()
        curves["ln of the amplitude"] = points
        fit = sharpen.fit_guinier(frequency[1:] ** 2, points[1:], 10.0)
        if fit is not None:
            yield Notice(f"{name}: the amplitudes fall by a B-factor of {-fit.b_factor:.1f} A^2 beyond 10 A.")
    for label, values in curves.items():
        yield Curve(label, frequency.tolist(), {label: values.tolist()})
