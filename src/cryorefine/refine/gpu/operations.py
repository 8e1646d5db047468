"""The operations of :mod:`cryorefine.refine.kernels` and :mod:`cryorefine.refine.posterior` on a GPU.

They have the same arguments and the same meaning. Images, slices, scores and volumes stay on the GPU;
lists of indices are made on the processor and go up with each call, since they are small beside what
they index. Only significant samples, and a few numbers for each particle, come back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.refine.gpu.source import i32, launch, tiles
from cryorefine.refine.posterior import BINS, COARSE_MARGIN

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Array = Any  # of CuPy
WARP = 32


def _pointers(sorted_values: NDArray[np.integer], count: int) -> I32:
    """Where each of the values 0..count-1 starts in a sorted list, and its end, shape (count + 1,)."""
    return np.searchsorted(sorted_values, np.arange(count + 1)).astype(np.int32)


class GpuOperations:
    """Operations on the current GPU.

    Parameters
    ----------
    xp : module
        CuPy.
    memory : int
        Working memory in bytes for dense scores, for fine scores and for slices each.
    """

    def __init__(self, xp: Any, memory: int) -> None:
        self.xp = xp
        self.memory = memory

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values on the GPU, contiguous."""
        return self.xp.ascontiguousarray(self.xp.asarray(values, dtype))

    def host(self, values: Array) -> Any:
        """Return values on the processor."""
        return self.xp.asnumpy(values)

    def zeros(self, shape: Any, dtype: Any = np.float32) -> Array:
        """Return zeros on the GPU."""
        return self.xp.zeros(shape, dtype)

    def slice_volume(
        self, volume: Array, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, re: Array, im: Array
    ) -> None:
        """Cut slices, or turned copies; see :func:`cryorefine.refine.kernels.slice_volume`."""
        points = self._points(kx, ky, kz)
        limit = i32(volume.shape[0] // 2)
        where = (self.array(matrices, np.float32), *points, np.float32(padding))
        launch("slice_volume", tiles(len(matrices), len(kx)), volume, limit, *where, re, im)

    def insert_slices(
        self,
        numerator: Array,
        weight: Array,
        matrices: F32,
        kx: F32,
        ky: F32,
        kz: F32,
        padding: float,
        re: Array,
        im: Array,
        w: Array,
    ) -> None:
        """Add slices to a volume; see :func:`cryorefine.refine.kernels.insert_slices`."""
        points = self._points(kx, ky, kz)
        limit = i32(numerator.shape[0] // 2)
        where = (self.array(matrices, np.float32), *points, np.float32(padding))
        launch("insert_slices", tiles(len(matrices), len(kx)), numerator, weight, limit, *where, re, im, w)

    def _points(self, kx: F32, ky: F32, kz: F32) -> tuple[Any, ...]:
        axes = (self.array(axis, np.float32) for axis in (kx, ky, kz if len(kz) else kx))
        return (*axes, i32(len(kz) > 0), i32(len(kx)))

    def score_entries(
        self,
        v_re: Array,
        v_im: Array,
        a_re: Array,
        a_im: Array,
        b: Array,
        t_re: Array,
        t_im: Array,
        rows: I32,
        block: I32,
        image: I32,
        shift: I32,
        dots: Array,
        norms: Array,
    ) -> None:
        """Dots and norms of listed entries; see :func:`cryorefine.refine.kernels.score_entries`."""
        lists = [self.array(each, np.int32) for each in (rows, block, image, shift)]
        prepared = (v_re, v_im, a_re, a_im, b, t_re, t_im, i32(v_re.shape[1]))
        launch("score_entries", WARP * len(block), *prepared, *lists, i32(len(block)), dots, norms)

    def sum_entries(
        self,
        v_re: Array,
        v_im: Array,
        x_re: Array,
        x_im: Array,
        model_ctf: Array,
        y_re: Array,
        y_im: Array,
        y_weight: Array,
        t_re: Array,
        t_im: Array,
        shell: I32,
        block: I32,
        image: I32,
        shift: I32,
        weights: Array,
        sum_re: Array,
        sum_im: Array,
        sum_weight: Array,
        cross: Array,
        power: Array,
    ) -> None:
        """Weighted sums and spectra; see :func:`cryorefine.refine.kernels.sum_entries`."""
        images, pixels = x_re.shape
        blocks = len(v_re) // 4
        phases = (t_re, t_im, i32(pixels))
        block_list, image_list, shift_list = (self.array(v, np.int32) for v in (block, image, shift))
        start = self.array(_pointers(block, blocks))
        launch(
            "sum_images",
            tiles(blocks, pixels),
            *(y_re, y_im, y_weight, *phases, start, image_list, shift_list, weights),
            *(sum_re, sum_im, sum_weight),
        )
        # The same entries once more, image by image, so that an image's spectra are summed by one thread.
        order = np.argsort(image, kind="stable").astype(np.int32)
        start = self.array(_pointers(image[order], images))
        spectra = [self.xp.empty((images, pixels), np.float32) for _ in range(2)]
        launch(
            "sum_models",
            tiles(images, pixels),
            *(v_re, v_im, x_re, x_im, model_ctf, *phases, start, self.array(order)),
            *(block_list, shift_list, weights, *spectra),
        )
        for values, total in zip(spectra, (cross, power), strict=True):
            self.add_by_shell(values, shell, total)

    def add_by_shell(self, values: Array, shell: I32, total: Array) -> None:
        """Add each row of values (n, pixels) by shell to a float64 array (n, shells)."""
        rows, shells = total.shape
        order = np.argsort(shell, kind="stable").astype(np.int32)
        lists = (self.array(_pointers(shell[order], shells)), self.array(order))
        sizes = (i32(rows), i32(values.shape[1]))
        launch("sum_by_shell", WARP * rows * shells, values, *sizes, *lists, i32(shells), total)

    def add_priors(self, scores: Array, norms: Array, orientation_prior: F32, shift_prior: F32) -> None:
        """Dots into log-weights; see :func:`cryorefine.refine.posterior.add_priors`."""
        _, particles, shifts = scores.shape
        own = i32(orientation_prior.shape[1] > 1)
        priors = (self.array(orientation_prior, np.float32), own, self.array(shift_prior, np.float32))
        sizes = (np.int64(scores.size), i32(particles), i32(shifts))
        launch("add_priors", scores.size, scores, norms, *priors, *sizes)

    def select_dense(self, scores: Array, fraction: float, single: bool) -> tuple[I32, I32, I32, I32]:
        """List the significant samples; see :func:`cryorefine.refine.posterior.select_dense`."""
        orientations, particles, shifts = scores.shape
        top = scores.max(axis=(0, 2))
        floor = top
        if not single:
            depth, _ = self._thresholds(scores, None, orientations * particles, shifts, top, fraction)
            floor = top - self.xp.maximum(depth, np.float32(COARSE_MARGIN))
        found = self.host(self.xp.flatnonzero(scores >= floor[None, :, None]))
        row, shift = np.divmod(found, shifts)
        orientation, particle = (part.astype(np.int32) for part in np.divmod(row, particles))
        count = np.bincount(particle, minlength=particles).astype(np.int32)
        return orientation, particle, shift.astype(np.int32), count

    def select_sparse(
        self,
        dots: Array,
        norms: Array,
        particle: I32,
        orientation_prior: F32,
        shift_prior: F32,
        shifts: int,
        particles: int,
        fraction: float,
    ) -> tuple[I32, I32, I32]:
        """List a local search's significant samples; see :func:`posterior.select_sparse`."""
        pairs, blocks = dots.shape[:2]
        owner = self.array(particle, np.int32)
        best = self.zeros(particles, np.uint64)
        priors = (self.array(orientation_prior, np.float32), self.array(shift_prior, np.float32))
        sizes = (np.int64(pairs * blocks), i32(blocks), i32(shifts))
        launch("weigh_local", pairs * blocks, dots, norms, owner, *priors, *sizes, best)
        top, _ = self._best(best)
        depth, _ = self._thresholds(dots, owner, pairs, 16 * blocks, top, fraction)
        floor = (top - self.xp.maximum(depth, np.float32(COARSE_MARGIN)))[owner]
        keep = dots.reshape(pairs, -1) >= floor[:, None]
        # In order of pair, orientation, shift.
        keep = keep.reshape(pairs, blocks, 4, 4).transpose(0, 2, 1, 3)
        found = self.host(self.xp.flatnonzero(self.xp.ascontiguousarray(keep)))
        row, shift = np.divmod(found, 4 * blocks)
        pair, of_four = (part.astype(np.int32) for part in np.divmod(row, 4))
        return pair, of_four, shift.astype(np.int32)

    def normalise(
        self,
        dots: Array,
        norms: Array,
        particle: I32,
        prior: F32,
        particles: int,
        fraction: float,
        single: bool,
    ) -> tuple[F64, F64, I64, F64]:
        """Dots into posterior weights; see :func:`cryorefine.refine.posterior.normalise`."""
        entries = len(dots)
        owner = self.array(particle, np.int32)
        best = self.zeros(particles, np.uint64)
        sizes = (np.int64(entries),)
        launch("weigh_fine", entries, dots, norms, owner, self.array(prior, np.float32), *sizes, best)
        top, position = self._best(best)
        depth, total = self._thresholds(dots, owner, entries, 16, top, fraction)
        used = self.zeros(particles, np.uint64)
        found = (top, position, depth, total, i32(single))
        launch("posterior_weights", entries, dots, owner, *sizes, *found, used)
        sums = self.host(total)
        with np.errstate(divide="ignore"):
            log_sum = self.host(top).astype(np.float64) + np.log(sums)
            largest = np.ones(particles) if single else 1 / sums
        return log_sum, largest, self.host(position), self.host(used) / 2.0**36

    def _best(self, keys: Array) -> tuple[Array, Array]:
        """Best log-weight of each particle, and its position."""
        top, position = self.xp.empty(len(keys), np.float32), self.xp.empty(len(keys), np.int64)
        launch("read_best", len(keys), keys, i32(len(keys)), top, position)
        return top, position

    def _thresholds(
        self, values: Array, particle: Array | None, rows: int, width: int, top: Array, fraction: float
    ) -> tuple[Array, Array]:
        """Depth that holds a fraction of each particle's probability, and all of the probability."""
        particles = len(top)
        counts = self.zeros((particles, BINS), np.uint64)
        owner = (top if particle is None else particle, i32(particle is not None), i32(particles))
        launch("histogram", rows, values, *owner, np.int64(rows), i32(width), top, counts)
        depth, total = self.xp.empty(particles, np.float32), self.xp.empty(particles, np.float64)
        launch("thresholds", particles, counts, i32(particles), np.float64(fraction), depth, total)
        return depth, total
