"""The contrast transfer function of a thin, weak phase object.

Conventions: underfocus positive, protein white, frequencies in 1/A after the magnification
matrix of the optics group (see :mod:`cryorefine.ctf.aberrations`). The CTF is
``-sin(gamma) * exp(-B u**2 / 4) * scale``, times what a dose leaves of the signal, with

``gamma = pi lambda (Dxx x**2 + 2 Dxy x y + Dyy y**2) + pi/2 Cs lambda**3 u**4 - phase shift
- atan(Q / sqrt(1 - Q**2)) + even aberrations``

where D is the defocus matrix with the eigenvalues -defocus_u and -defocus_v
(Rohou & Grigorieff (2015), J. Struct. Biol. 192:216; Zivanov et al. (2018), eLife 7:e42166).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class CtfParameters:
    """What the CTF of an image depends on: a number for all images, or an array of shape (n,).

    Attributes
    ----------
    voltage : float or ndarray
        Acceleration voltage in kV.
    spherical_aberration : float or ndarray
        Cs in mm.
    amplitude_contrast : float or ndarray
        Q, in [0, 1).
    defocus_u, defocus_v : float or ndarray
        Defocus in A along the two principal axes, underfocus positive.
    defocus_angle : float or ndarray
        Angle in degrees from x to the axis of ``defocus_u``.
    phase_shift : float or ndarray
        Phase shift of a phase plate in degrees.
    b_factor : float or ndarray
        Temperature factor in A**2; positive damps.
    scale : float or ndarray
        Factor on the CTF.
    dose : float or ndarray
        Dose in electrons per A**2 that the specimen had taken; see :func:`dose_weight`.
    """

    voltage: float | NDArray[np.float64]
    spherical_aberration: float | NDArray[np.float64]
    amplitude_contrast: float | NDArray[np.float64]
    defocus_u: float | NDArray[np.float64]
    defocus_v: float | NDArray[np.float64]
    defocus_angle: float | NDArray[np.float64] = 0.0
    phase_shift: float | NDArray[np.float64] = 0.0
    b_factor: float | NDArray[np.float64] = 0.0
    scale: float | NDArray[np.float64] = 1.0
    dose: float | NDArray[np.float64] = 0.0

    def __post_init__(self) -> None:
        shape = np.broadcast_shapes(*(np.shape(getattr(self, f.name)) for f in fields(self)))
        if len(shape) > 1:
            raise ValueError(f"CTF parameters must be numbers or arrays (n,), not {shape}")
        # Asked for with every column of every chunk of images.
        object.__setattr__(self, "_count", shape[0] if shape else 1)

    def __len__(self) -> int:
        """Return the number of images; 1 when every parameter is a single number."""
        return int(self._count)  # type: ignore[attr-defined]

    def take(self, indices: NDArray[np.int64] | slice) -> CtfParameters:
        """Return the parameters of some of the images.

        Parameters
        ----------
        indices : ndarray of int or slice
            Which of the n images.
        """
        values = (np.asarray(getattr(self, f.name), np.float64) for f in fields(self))
        return CtfParameters(*(value if value.ndim == 0 else value[indices] for value in values))

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one parameter for every image, shape (n,)."""
        values = np.asarray(getattr(self, name), dtype=np.float64)
        return values if values.shape == (len(self),) else np.broadcast_to(values, (len(self),))


def electron_wavelength(voltage: ArrayLike) -> NDArray[np.float64]:
    """Return the relativistic wavelength of electrons in A.

    Parameters
    ----------
    voltage : array_like
        Acceleration voltage in kV (300 kV: 0.019688 A).
    """
    volts = np.asarray(voltage, dtype=np.float64) * 1000
    return np.asarray(12.2643247 / np.sqrt(volts * (1 + volts * 0.978466e-6)))


def phase(
    params: CtfParameters, x: ArrayLike, y: ArrayLike, even: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the phase gamma of the contrast transfer in radians.

    Parameters
    ----------
    params : CtfParameters
        Parameters of n images.
    x, y : array_like, shape (pixels,)
        Spatial frequencies in 1/A.
    even : array_like, shape (pixels,) or (n, pixels), optional
        Phase of even aberrations in radians.

    Returns
    -------
    ndarray of float64, shape (n, pixels)
    """
    fx = np.asarray(x, dtype=np.float64)
    fy = np.asarray(y, dtype=np.float64)
    xx, xy, yy, quartic, constant = (c[:, None] for c in phase_coefficients(params))
    gamma = xx * fx**2 + xy * (fx * fy) + yy * fy**2 + quartic * (fx**2 + fy**2) ** 2 + constant
    if even is not None:
        gamma = gamma + np.asarray(even, dtype=np.float64)
    return gamma


def phase_coefficients(params: CtfParameters) -> tuple[NDArray[np.float64], ...]:
    """Return the coefficients of gamma for x**2, x*y, y**2, u**4 and 1, each of shape (n,).

    Together with :func:`ctf` this is all that a kernel needs to evaluate CTFs by itself.
    """
    wavelength = electron_wavelength(params.column("voltage"))
    contrast = params.column("amplitude_contrast")
    angle = np.deg2rad(params.column("defocus_angle"))
    # gamma's quadratic form is pi lambda D, D = -(mean I + half difference * (cos 2a, sin 2a) form)
    mean = (params.column("defocus_u") + params.column("defocus_v")) / 2
    half_difference = (params.column("defocus_u") - params.column("defocus_v")) / 2
    xx = -np.pi * wavelength * (mean + half_difference * np.cos(2 * angle))
    yy = -np.pi * wavelength * (mean - half_difference * np.cos(2 * angle))
    xy = -2 * np.pi * wavelength * half_difference * np.sin(2 * angle)
    quartic = np.pi / 2 * params.column("spherical_aberration") * 1e7 * wavelength**3
    amplitude = np.arctan2(contrast, np.sqrt(1 - contrast**2))
    constant = -np.deg2rad(params.column("phase_shift")) - amplitude
    return xx, xy, yy, quartic, constant


def ctf(
    params: CtfParameters,
    x: ArrayLike,
    y: ArrayLike,
    *,
    intact_first_peak: bool = False,
    absolute: bool = False,
    phase_flip: bool = False,
    even: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Return the CTF of n images at a list of frequencies.

    Compiled; a few nanoseconds a value on one thread, and the interpreter lock is released.

    Parameters
    ----------
    params : CtfParameters
        Parameters of n images.
    x, y : array_like, shape (pixels,)
        Spatial frequencies in 1/A.
    intact_first_peak : bool
        Leave amplitudes alone (sine 1) where ``|gamma| < pi/2``.
    absolute : bool
        Absolute value, for images whose phases have been flipped.
    phase_flip : bool
        Sign only, times the scale.
    even : array_like, shape (pixels,) or (n, pixels), optional
        Phase of even aberrations in radians.

    Returns
    -------
    ndarray of float32, shape (n, pixels)
        Values below 1e-8 in magnitude are +-1e-8, so that they can be divided by.
    """
    from cryorefine.ctf.kernels import evaluate

    if absolute and phase_flip:
        raise ValueError("absolute and phase_flip exclude each other")
    fx = np.ascontiguousarray(x, dtype=np.float64)
    fy = np.ascontiguousarray(y, dtype=np.float64)
    if fx.ndim != 1 or fx.shape != fy.shape:
        raise ValueError(f"x and y must both have shape (pixels,), not {fx.shape} and {fy.shape}")
    extra = np.zeros((0, len(fx))) if even is None else np.atleast_2d(np.asarray(even, dtype=np.float64))
    if extra.shape not in ((0, len(fx)), (1, len(fx)), (len(params), len(fx))):
        raise ValueError(f"even must have shape ({len(fx)},) or {(len(params), len(fx))}, not {extra.shape}")
    damping = np.empty((0, len(fx)), dtype=np.float32)
    if not phase_flip:  # a sign is not damped
        damping = _damping(params, np.hypot(fx, fy), damping)
    result = np.empty((len(params), len(fx)), dtype=np.float32)
    evaluate(
        np.stack(phase_coefficients(params)),
        np.ascontiguousarray(params.column("scale")),
        fx,
        fy,
        np.ascontiguousarray(extra),
        damping,
        intact_first_peak,
        absolute,
        phase_flip,
        np.empty(len(fx)),
        result,
    )
    return result


def _damping(
    params: CtfParameters, frequency: NDArray[np.float64], nothing: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what B-factor and dose leave of each image's CTF, shape (n, pixels), or ``nothing``."""
    damping = nothing
    if np.any(params.b_factor):
        exponent = (-params.column("b_factor") / 4).astype(np.float32)[:, None]
        exponent = exponent * (frequency**2).astype(np.float32)
        damping = np.exp(exponent, out=exponent)
    if np.any(params.dose):
        left = dose_weight(frequency, params.column("dose")[:, None]).astype(np.float32)
        damping = left * damping if len(damping) else left
    return damping


def dose_weight(frequency: ArrayLike, dose: ArrayLike) -> NDArray[np.float64]:
    """Return how much of a signal is left after a dose: ``exp(-dose / (2 Ne))``.

    ``Ne = 0.245 u**-1.665 + 2.81`` electrons per square angstrom is the critical dose of
    Grant & Grigorieff (2015), eLife 4:e06980, at 300 kV.

    Parameters
    ----------
    frequency : array_like
        Spatial frequency u in 1/A.
    dose : array_like
        Accumulated dose in electrons per A**2; broadcast against ``frequency``.

    Returns
    -------
    ndarray of float64
        Weights in (0, 1]; 1 at frequency 0.
    """
    u = np.asarray(frequency, dtype=np.float64)
    # 1/Ne written so that u = 0 needs no special case
    power = u**1.665
    return np.asarray(np.exp(-0.5 * np.asarray(dose, dtype=np.float64) * power / (0.245 + 2.81 * power)))
