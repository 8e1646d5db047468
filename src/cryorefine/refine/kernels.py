"""Compiled inner loops of the refinement: sparse scores and weighted sums.

All are single-threaded and release the interpreter's lock: a thread works on one chunk of particles.
Complex arrays are split into real and imaginary planes where the compiler then vectorises over
pixels. Each kernel has a plain NumPy counterpart in ``oracle.py`` that it is tested against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]
I32 = NDArray[np.int32]

_FAST: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}


@njit(**_FAST)
def _dot_block(v_re: F32, v_im: F32, rows: I32, a_re: F32, a_im: F32, t_re: F32, t_im: F32, out: F32) -> None:
    """Add Re sum conj(V_o) a t to out (4, 4) for 4 slices and 4 shifts held in registers.

    Sixteen sums are kept in registers while the pixels stream by, so that each shifted pixel is made
    once for four slices and each slice pixel is read once for four shifts.
    """
    z = np.float32(0)
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = z
    s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = z
    vr0, vr1, vr2, vr3 = v_re[rows[0]], v_re[rows[1]], v_re[rows[2]], v_re[rows[3]]
    vi0, vi1, vi2, vi3 = v_im[rows[0]], v_im[rows[1]], v_im[rows[2]], v_im[rows[3]]
    tr0, tr1, tr2, tr3 = t_re[0], t_re[1], t_re[2], t_re[3]
    ti0, ti1, ti2, ti3 = t_im[0], t_im[1], t_im[2], t_im[3]
    for p in range(a_re.shape[0]):
        ar = a_re[p]
        ai = a_im[p]
        x0 = ar * tr0[p] - ai * ti0[p]
        y0 = ar * ti0[p] + ai * tr0[p]
        x1 = ar * tr1[p] - ai * ti1[p]
        y1 = ar * ti1[p] + ai * tr1[p]
        x2 = ar * tr2[p] - ai * ti2[p]
        y2 = ar * ti2[p] + ai * tr2[p]
        x3 = ar * tr3[p] - ai * ti3[p]
        y3 = ar * ti3[p] + ai * tr3[p]
        r, i = vr0[p], vi0[p]
        s00 += r * x0 + i * y0
        s01 += r * x1 + i * y1
        s02 += r * x2 + i * y2
        s03 += r * x3 + i * y3
        r, i = vr1[p], vi1[p]
        s10 += r * x0 + i * y0
        s11 += r * x1 + i * y1
        s12 += r * x2 + i * y2
        s13 += r * x3 + i * y3
        r, i = vr2[p], vi2[p]
        s20 += r * x0 + i * y0
        s21 += r * x1 + i * y1
        s22 += r * x2 + i * y2
        s23 += r * x3 + i * y3
        r, i = vr3[p], vi3[p]
        s30 += r * x0 + i * y0
        s31 += r * x1 + i * y1
        s32 += r * x2 + i * y2
        s33 += r * x3 + i * y3
    out[0, 0] += s00
    out[0, 1] += s01
    out[0, 2] += s02
    out[0, 3] += s03
    out[1, 0] += s10
    out[1, 1] += s11
    out[1, 2] += s12
    out[1, 3] += s13
    out[2, 0] += s20
    out[2, 1] += s21
    out[2, 2] += s22
    out[2, 3] += s23
    out[3, 0] += s30
    out[3, 1] += s31
    out[3, 2] += s32
    out[3, 3] += s33


@njit(**_FAST)
def score_entries(
    v_re: F32,
    v_im: F32,
    a_re: F32,
    a_im: F32,
    b: F32,
    t_re: F32,
    t_im: F32,
    rows: I32,
    block: I32,
    image: I32,
    shift: I32,
    dots: F32,
    norms: F32,
) -> None:
    """Dots and norms of the listed (four slices) x (image) x (four shifts).

    Parameters
    ----------
    v_re, v_im : float32, shape (slices, pixels)
        Slices.
    a_re, a_im, b : float32, shape (images, pixels)
        Weighted image (model CTF * X / sigma2) and half its model's weight (CTF^2 / sigma2 / 2).
    t_re, t_im : float32, shape (shift blocks, 4, pixels)
        Phases of the shifts, four to a block.
    rows : int32, shape (blocks, 4)
        The slices of each block.
    block, image, shift : int32, shape (entries,)
        What each entry pairs; sorted by block, then image, so that slices stay in cache.
    dots : float32, shape (entries, 4, 4)
        Re sum conj(V) a t, added to what is there (slice, shift).
    norms : float32, shape (entries, 4)
        sum |V|^2 b, added to what is there.
    """
    norm = np.zeros(4, np.float32)
    for e in range(block.shape[0]):
        four = rows[block[e]]
        n = image[e]
        if e == 0 or block[e] != block[e - 1] or image[e] != image[e - 1]:
            bn = b[n]
            for c in range(4):
                vr, vi = v_re[four[c]], v_im[four[c]]
                s = np.float32(0)
                for p in range(bn.shape[0]):
                    s += bn[p] * (vr[p] * vr[p] + vi[p] * vi[p])
                norm[c] = s
        for c in range(4):
            norms[e, c] += norm[c]
        _dot_block(v_re, v_im, four, a_re[n], a_im[n], t_re[shift[e]], t_im[shift[e]], dots[e])


@njit(**_FAST)
def sum_entries(
    v_re: F32,
    v_im: F32,
    x_re: F32,
    x_im: F32,
    model_ctf: F32,
    y_re: F32,
    y_im: F32,
    y_weight: F32,
    t_re: F32,
    t_im: F32,
    shell: I32,
    block: I32,
    image: I32,
    shift: I32,
    weights: F32,
    sum_re: F32,
    sum_im: F32,
    sum_weight: F32,
    cross: NDArray[np.float64],
    power: NDArray[np.float64],
) -> None:
    """Posterior-weighted sums of images for each slice, and the spectra of model and residual.

    For every slice o the images are first summed in two dimensions,
    ``sum_o = sum_{i,t} w_oit shift_t(y_i)``, so that one insertion serves all particles.

    Parameters
    ----------
    v_re, v_im : float32, shape (4 * blocks, pixels)
        Slices.
    x_re, x_im, model_ctf : float32, shape (images, pixels)
        Masked images and the CTF of their model, for the spectra.
    y_re, y_im, y_weight : float32, shape (images, pixels)
        Unmasked images times CTF / sigma2, and CTF^2 / sigma2, for the reconstruction.
    t_re, t_im : float32, shape (shift blocks, 4, pixels)
        Phases of the shifts.
    shell : int32, shape (pixels,)
        Shell of each pixel.
    block, image, shift : int32, shape (entries,)
        As in :func:`score_entries`.
    weights : float32, shape (entries, 4, 4)
        Posterior weights (slice, shift).
    sum_re, sum_im, sum_weight : float32, shape (4 * blocks, pixels)
        Sums for each slice, added to what is there.
    cross, power : float64, shape (images, shells)
        sum w Re(conj(CTF V) shift(X)) and sum w |CTF V|^2 by shell, added to what is there.
    """
    pixels = shell.shape[0]
    phase_re = np.zeros((4, pixels), np.float32)
    phase_im = np.zeros((4, pixels), np.float32)
    mass = np.zeros(4, np.float32)
    # Spectra are summed pixel by pixel, and once for each image by shell: only the former is done in vectors.
    image_cross = np.zeros(x_re.shape, np.float32)
    image_power = np.zeros(x_re.shape, np.float32)
    seen = np.zeros(x_re.shape[0], np.bool_)
    entries = block.shape[0]
    e = 0
    while e < entries:
        start = e
        n = image[e]
        seen[n] = True
        phase_re[:] = 0
        phase_im[:] = 0
        mass[:] = 0
        while e < entries and block[e] == block[start] and image[e] == n:
            r0, r1, r2, r3 = t_re[shift[e], 0], t_re[shift[e], 1], t_re[shift[e], 2], t_re[shift[e], 3]
            i0, i1, i2, i3 = t_im[shift[e], 0], t_im[shift[e], 1], t_im[shift[e], 2], t_im[shift[e], 3]
            for c in range(4):
                w0, w1, w2, w3 = weights[e, c, 0], weights[e, c, 1], weights[e, c, 2], weights[e, c, 3]
                w = w0 + w1 + w2 + w3
                if w == 0:
                    continue
                mass[c] += w
                pr, pi = phase_re[c], phase_im[c]
                for p in range(pixels):
                    pr[p] += w0 * r0[p] + w1 * r1[p] + w2 * r2[p] + w3 * r3[p]
                    pi[p] += w0 * i0[p] + w1 * i1[p] + w2 * i2[p] + w3 * i3[p]
            e += 1
        yr, yi, yw = y_re[n], y_im[n], y_weight[n]
        xr, xi, by_cross, by_power = x_re[n], x_im[n], image_cross[n], image_power[n]
        for c in range(4):
            m = mass[c]
            if m == 0:
                continue
            row = 4 * block[start] + c
            pr, pi = phase_re[c], phase_im[c]
            sr, si, sw = sum_re[row], sum_im[row], sum_weight[row]
            for p in range(pixels):
                sr[p] += yr[p] * pr[p] - yi[p] * pi[p]
                si[p] += yr[p] * pi[p] + yi[p] * pr[p]
                sw[p] += m * yw[p]
            vr, vi = v_re[row], v_im[row]
            for p in range(pixels):
                re = xr[p] * pr[p] - xi[p] * pi[p]
                im = xr[p] * pi[p] + xi[p] * pr[p]
                by_cross[p] += vr[p] * re + vi[p] * im
                by_power[p] += m * (vr[p] * vr[p] + vi[p] * vi[p])
    for n in range(seen.shape[0]):
        if seen[n]:
            for p in range(pixels):
                ctf = model_ctf[n, p]
                cross[n, shell[p]] += ctf * image_cross[n, p]
                power[n, shell[p]] += ctf * ctf * image_power[n, p]
