"""The operations of :mod:`cryorefine.refine.kernels` and :mod:`cryorefine.refine.posterior` on a GPU.

They have the same arguments and the same meaning. Images, slices, scores and volumes stay on the GPU;
lists of indices are made on the processor and go up with each call, since they are small beside what
they index. Only significant samples, and a few numbers for each particle, come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.compute.gpu_turns import free_memory
from cryorefine.ctf.ctf import CtfParameters, phase_coefficients
from cryorefine.refine.gpu.insertion import GpuInsertion, points
from cryorefine.refine.gpu.source import i32, launch, tiles
from cryorefine.refine.half_plane import HalfPlane
from cryorefine.refine.parameters import Expected
from cryorefine.refine.posterior import BINS, COARSE_MARGIN

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Array = Any  # of CuPy
WARP = 32
SMALLEST_MEMORY = 2**20


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
    copy : callable
        Returns the GPU's copy of an array that many calls share.
    """

    def __init__(self, xp: Any, memory: int, copy: Callable[[Any], Array]) -> None:
        self.xp = xp
        self.memory = memory
        self.volume = copy

    def shrink(self) -> bool:
        """Halve the working memory, and give back what is unused; tell whether enough is left to go on."""
        free_memory()
        self.memory //= 2
        return self.memory >= SMALLEST_MEMORY

    @property
    def slice_pixels(self) -> int:
        """Pixels of the slices that a dense search makes at a time."""
        return self.memory // 16

    @property
    def slice_memory(self) -> int:
        """Bytes of the slices that searches of lists of poses make at a time."""
        return self.memory // 2

    @property
    def fft(self) -> Any:
        """Transforms, as of scipy.fft."""
        import cupyx.scipy.fft

        return cupyx.scipy.fft

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Return values on the GPU, contiguous."""
        return self.xp.ascontiguousarray(self.xp.asarray(values, dtype))

    def split(self, values: Array) -> tuple[Array, Array]:
        """Split a complex array into its real and imaginary parts."""
        return self.array(values.real, np.float32), self.array(values.imag, np.float32)

    def host(self, values: Array) -> Any:
        """Return values on the processor."""
        return self.xp.asnumpy(values)

    def zeros(self, shape: Any, dtype: Any) -> Array:
        """Return zeros on the GPU."""
        return self.xp.zeros(shape, dtype)

    def slice_volume(
        self, volume: Array, matrices: F32, kx: F32, ky: F32, kz: F32, padding: float, re: Array, im: Array
    ) -> None:
        """Cut slices, or turned copies; see :func:`cryorefine.refine.interpolation.slice_volume`."""
        limit = i32(volume.shape[0] // 2)
        where = (self.array(matrices, np.float32), *points(self.xp, kx, ky, kz), np.float32(padding))
        launch("slice_volume", tiles(len(matrices), len(kx)), volume, limit, *where, re, im)

    def insertion(
        self,
        shape: tuple[int, ...],
        images: Sequence[tuple[Array, Array, Array]],
        expected: Expected | None = None,
    ) -> GpuInsertion:
        """Return empty sums; see :meth:`.ProcessorOperations.insertion`."""
        return GpuInsertion(self.xp, shape, images, expected)

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

    def shift_whole_pixels(self, images: Array, shifts: I64) -> Array:
        """Move images; see :func:`cryorefine.refine.whole_pixels.shift_whole_pixels`."""
        result = self.xp.empty(images.shape, np.float32)
        sizes = (i32(images.shape[-1]), np.int64(images.size))
        launch("shift_whole_pixels", images.size, images, self.array(shifts, np.int32), *sizes, result)
        return result

    def ctf(
        self,
        parameters: CtfParameters,
        x: F64,
        y: F64,
        *,
        intact_first_peak: bool = False,
        absolute: bool = False,
        even: F64 | None = None,
    ) -> Array:
        """CTF of n images, shape (n, pixels); see :func:`cryorefine.ctf.ctf.ctf`."""
        images, pixels = len(parameters), len(x)
        columns = [parameters.column(name) for name in ("b_factor", "dose", "scale")]
        extra = np.zeros((0, pixels)) if even is None else np.atleast_2d(even)
        result = self.xp.empty((images, pixels), np.float32)
        launch(
            "evaluate_ctf",
            tiles(images, pixels),
            self.array(np.stack([*phase_coefficients(parameters), *columns]), np.float64),
            *(self.array(each, np.float64) for each in (x, y, extra)),
            *(i32(value) for value in (len(extra), images, pixels, intact_first_peak, absolute)),
            result,
        )
        return result

    def sum_by_shell(self, plane: HalfPlane, values: Array, shells: int) -> F64:
        """Sum rows by shell; see :func:`cryorefine.refine.half_plane.sum_by_shell`."""
        total = self.zeros((len(values), shells), np.float64)
        self.add_by_shell(values, plane.shell, total)
        return self.host(total)

    def add_by_shell(self, values: Array, shell: I32, total: Array) -> None:
        """Add each row of values (n, pixels) by shell to a float64 array (n, shells)."""
        rows, shells = total.shape
        order = np.argsort(shell, kind="stable").astype(np.int32)
        lists = (self.array(_pointers(shell[order], shells)), self.array(order))
        sizes = (i32(rows), i32(values.shape[1]))
        launch("sum_by_shell", WARP * rows * shells, self.array(values), *sizes, *lists, i32(shells), total)

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
        single: bool,
    ) -> tuple[I32, I32, I32]:
        """List a local search's significant samples; see :func:`posterior.select_sparse`."""
        pairs, blocks = dots.shape[:2]
        owner = self.array(particle, np.int32)
        best = self.zeros(particles, np.uint64)
        priors = (self.array(orientation_prior, np.float32), self.array(shift_prior, np.float32))
        sizes = (np.int64(pairs * blocks), i32(blocks), i32(shifts))
        launch("weigh_local", pairs * blocks, dots, norms, owner, *priors, *sizes, best)
        top, _ = self._best(best)
        floor = top
        if not single:
            depth, _ = self._thresholds(dots, owner, pairs, 16 * blocks, top, fraction)
            floor = top - self.xp.maximum(depth, np.float32(COARSE_MARGIN))
        keep = dots.reshape(pairs, -1) >= floor[owner][:, None]
        # In order of pair, orientation, shift.
        keep = keep.reshape(pairs, blocks, 4, 4).transpose(0, 2, 1, 3)
        found = self.host(self.xp.flatnonzero(self.xp.ascontiguousarray(keep)))
        row, shift = np.divmod(found, 4 * blocks)
        pair, of_four = (part.astype(np.int32) for part in np.divmod(row, 4))
        return pair, of_four, shift.astype(np.int32)

    def sum_over_shifts(self, dots: Array, norms: Array, particle: I32, shift_prior: F32) -> F64:
        """Log-weights of orientations; see :func:`cryorefine.refine.posterior.sum_over_shifts`."""
        xp, count = self.xp, shift_prior.shape[1]
        scores = dots.swapaxes(2, 3).reshape(len(dots), -1, 4)[:, :count] - norms[:, None]
        scores += self.array(shift_prior[particle])[:, :, None]
        top = scores.max(axis=1)
        return self.host(top + xp.log(xp.exp(scores - top[:, None]).sum(axis=1)))

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
