"""The image handler on the images of a particle STAR file: new stacks, and a STAR file that names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryorefine.errors import UserError
from cryorefine.io.images import ImageReader, parse_reference
from cryorefine.io.mrc import read_layout, write_map, write_stack
from cryorefine.io.particles import ParticleFile, column, project_root, read_particles, write_particles
from cryorefine.jobs.base import Product, Progress, Run
from cryorefine.jobs.image_handler_steps import BATCH, processed, steps_for
from cryorefine.maps.image_operations import MeanAmplitudes

if TYPE_CHECKING:
    from cryorefine.jobs.image_handler import Options, Result


def run(options: Options) -> Run[Result]:
    """Process every particle image; an output ``NAME.mrcs`` is one stack, a word marks every stack."""
    from cryorefine.jobs.image_handler import Result
    from cryorefine.jobs.image_handler_measure import measure

    particles = read_particles(options.input, required=["rlnImageName"])
    names = [str(name) for name in particles.particles["rlnImageName"]]
    reader = ImageReader(project_root(options.input, names[0]))
    given = options.pixel_size if options.pixel_size is not None and options.pixel_size > 0 else None
    sizes = np.full(len(names), given) if given else column(particles, "rlnImagePixelSize")
    if np.ptp(sizes) > 1e-6:
        raise UserError(
            f"{options.input} holds images of {sizes.min():g} to {sizes.max():g} A/px; split it by optics "
            "group first."
        )
    if options.avg_bin or options.avg_first or options.avg_last:
        raise UserError(
            f"--avg-bin, --avg-first and --avg-last work on stacks (.mrcs), but {options.input} is a STAR "
            "file; leave them out."
        )
    pixel_size = float(sizes[0])
    if options.average or options.amplitudes:
        return (yield from _one_of_all(options, particles, names, reader, pixel_size))
    steps, new_size = steps_for(options, reader.shape(names[0]), pixel_size, len(names))
    header = options.force_header_pixel_size or new_size
    output, box = options.output, reader.shape(names[0])[1]
    new_names = list(names)
    for target, rows in _targets(output, reader.root, names).items():
        done: list[NDArray[Any]] = []
        for start in range(0, len(rows), BATCH):
            yield Progress("Processing", rows[start], len(names))
            images = _read(options, reader, [names[row] for row in rows[start : start + BATCH]])
            done.extend(processed(images, steps, options))
        yield from measure(options, done, new_size)
        box = done[0].shape[-1]
        if target is None:
            continue
        # Relative to the project as the old names, where the stack lies in it.
        shown = target.relative_to(reader.root) if target.is_relative_to(reader.root) else target
        write_stack(target, np.stack(done), header, options.half_precision)
        for number, row in enumerate(rows, 1):
            new_names[row] = f"{number:06d}@{shown}"
    yield Progress("Processing", len(names), len(names))
    if output is None:
        return Result(None, header, box)
    star = _star_beside(options.input, output)
    write_particles(star, _renamed(particles, new_names, header, box), ["cryorefine image-handler"])
    yield Product("particles", star, star.stem)
    return Result(star, header, box)


def _one_of_all(
    options: Options, particles: ParticleFile, names: list[str], reader: ImageReader, pixel_size: float
) -> Run[Result]:
    """Make one image of all: their mean, or the mean of their amplitudes."""
    from cryorefine.jobs.image_handler_measure import measure

    if options.output is not None and options.output.suffix != ".mrc":
        raise UserError(f"{options.input} gives one image, so {options.output} has to be named .mrc.")
    steps, header = steps_for(options, reader.shape(names[0]), pixel_size, len(names))
    psi = np.zeros(len(names))
    if options.avg_ampl2_ali:
        psi = column(particles, "rlnAnglePsi")
    amplitudes = MeanAmplitudes(options.amplitudes != "avg_ampl", options.threads)
    total: NDArray[Any] = np.zeros(())
    for start in range(0, len(names), BATCH):
        yield Progress("Processing", start, len(names))
        part = slice(start, start + BATCH)
        images = processed(_read(options, reader, names[part]), steps, options)
        for image, angle in zip(images, psi[part], strict=True):
            if options.amplitudes:
                amplitudes.add(image, float(angle))
            else:
                total = total + image.astype(np.float64)
    image = amplitudes.result() if options.amplitudes else (total / len(names)).astype(np.float32)
    if not options.amplitudes:
        yield from measure(options, [image], header)
    yield Progress("Processing", len(names), len(names))
    return (yield from write_one(options, image, header))


def write_one(options: Options, image: NDArray[Any], pixel_size: float) -> Run[Result]:
    """Write the one image that all have become, if it is to be written."""
    from cryorefine.jobs.image_handler import Result

    header = options.force_header_pixel_size or pixel_size
    if options.output is not None:
        write_map(options.output, image, header)
        yield Product("map", options.output, options.output.stem)
    return Result(options.output, header, int(image.shape[-1]))


def _read(options: Options, reader: ImageReader, names: list[str]) -> NDArray[np.float32]:
    """Read images, with what is no number replaced where that is asked for."""
    if not options.remove_nan:
        return reader.read(names)
    images = []
    for name in names:
        number, file = parse_reference(name)
        image = read_layout(reader.root / file).memory_map()[(number or 1) - 1].astype(np.float32)
        value = options.replace_nan
        images.append(np.nan_to_num(image, copy=False, nan=value, posinf=value, neginf=value))
    return np.stack(images)


def _targets(output: Path | None, root: Path, names: list[str]) -> dict[Path | None, list[int]]:
    """Return stack -> the particles in it, in their order."""
    if output is None:
        return {None: list(range(len(names)))}
    if output.suffix == ".mrcs":
        return {output: list(range(len(names)))}
    if output.suffix or output.parent != Path("."):
        raise UserError(
            f"{output} is no name for the images of a STAR file; give a stack (.mrcs), or one word to put "
            "into the name of every stack."
        )
    targets: dict[Path | None, list[int]] = {}
    for row, name in enumerate(names):
        source = root / parse_reference(name)[1]
        targets.setdefault(source.with_name(f"{source.stem}_{output.name}{source.suffix}"), []).append(row)
    return targets


def _star_beside(source: Path, output: Path) -> Path:
    if output.suffix == ".mrcs":
        star = output.with_suffix(".star")
        if star.exists() and star.samefile(source):
            raise UserError(f"{star} is the input itself; give the output another name.")
        return star
    return source.with_name(f"{source.stem}_{output.name}.star")


def _renamed(particles: ParticleFile, names: list[str], pixel_size: float, box: int) -> ParticleFile:
    table, optics = particles.particles.copy(), particles.optics.copy()
    table["rlnImageName"] = names
    optics["rlnImagePixelSize"] = pixel_size
    optics["rlnImageSize"] = box
    return particles.replace(particles=table, optics=optics)
