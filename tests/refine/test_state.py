"""A checkpoint gives back every bit of a refinement's state, and nothing else passes for one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.refine.schedule import Schedule
from cryorefine.refine.state import HalfModel, PoseTable, State, load_state, save_state


def half_model(rng: np.random.Generator, directions: int) -> HalfModel:
    return HalfModel(
        reference=rng.normal(size=(8, 8, 8)).astype(np.float32),
        sigma2_noise=rng.random((2, 5)),
        direction_prior=rng.random(directions),
        scale=rng.random(3),
        # What JSON and text would lose: the last bits, infinity, and the sign of zero.
        ssnr=np.array([np.inf, np.nan, -0.0, 5e-324, 0.1 + 0.2]),
        sigma2=rng.random(5),
        tau2=rng.random(5),
        sigma_offset=1 / 3,
        mean_norm=0.1 + 0.2,
        mean_largest_weight=float(np.nextafter(1, 0)),
        log_likelihood=-1.2345678901234567e15,
    )


@pytest.fixture
def state(rng: np.random.Generator) -> State:
    table = PoseTable(
        poses=rng.normal(size=(6, 3, 3)),
        offsets=rng.normal(size=(6, 2)),
        norm=rng.random(6),
        log_likelihood=rng.normal(size=6),
        largest_weight=rng.random(6),
        significant=np.array([1, 2, 3, 2**40, 5, 6]),
    )
    # Directions of a global search in one half and none, as in a local one, in the other.
    halves = (half_model(rng, 12), half_model(rng, 0))
    schedule = Schedule(
        order=3, local_order=4, offset_range=17.7, offset_step=0.1 + 0.2, perturbation=-1 / 3,
        resolution=1 / 7.31, high_fsc_at_limit=True, without_gain=2, converged=True,
    )  # fmt: skip
    return State(11, 3.54, halves, table, np.array([1, 2, 1, 2, 1, 2]), rng.random(5), schedule)


def bits(part: object) -> object:
    """Everything in a part of the state, arrays as type, shape and bytes, numbers in hexadecimal."""
    if isinstance(part, np.ndarray):
        return part.dtype.str, part.shape, part.tobytes()
    if isinstance(part, float):
        return part.hex()
    if isinstance(part, tuple):
        return tuple(bits(item) for item in part)
    if dataclasses.is_dataclass(part):
        return {field.name: bits(getattr(part, field.name)) for field in dataclasses.fields(part)}
    return part


def test_every_bit_comes_back(tmp_path: Path, state: State) -> None:
    save_state(tmp_path / "run_it011_checkpoint.npz", state)
    assert bits(load_state(tmp_path / "run_it011_checkpoint.npz")) == bits(state)


def test_the_same_state_gives_the_same_file(tmp_path: Path, state: State) -> None:
    save_state(tmp_path / "a.npz", state)
    save_state(tmp_path / "b.npz", load_state(tmp_path / "a.npz"))
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert {n: a[n].tobytes() for n in a.files} == {n: b[n].tobytes() for n in b.files}


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def truncated(path: Path, state: State) -> None:
    save_state(path, state)
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path, state: State) -> None:
    save_state(path, state)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


FOREIGN: dict[str, Callable[[Path, State], object]] = {
    "text": lambda path, state: path.write_text("data_particles\n"),
    "empty": lambda path, state: path.write_bytes(b""),
    "array": lambda path, state: single_array(path),
    "archive": lambda path, state: np.savez(path, reference=np.zeros(3)),
    "archive of numbers": lambda path, state: np.savez(path, numbers=np.array(json.dumps({"version": 1}))),
    "list of numbers": lambda path, state: np.savez(path, numbers=np.array("[1, 2]")),
    "pickle": lambda path, state: np.savez(path, numbers=np.array([{}], dtype=object)),
    "truncated": truncated,
    "damaged": flipped,
    "missing": lambda path, state: None,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_anything_else_is_refused_in_one_sentence(tmp_path: Path, state: State, kind: str) -> None:
    path = tmp_path / "run_it004_checkpoint.npz"
    FOREIGN[kind](path, state)
    with pytest.raises(UserError, match=r"run_it004_checkpoint\.npz is not a checkpoint"):
        load_state(path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, state: State) -> None:
    path = tmp_path / "later.npz"
    save_state(path, state)
    with np.load(path) as archive:
        arrays = dict(archive)
    numbers = json.loads(str(arrays.pop("numbers"))) | {"version": 99}
    np.savez(path, numbers=np.array(json.dumps(numbers)), **arrays)
    with pytest.raises(UserError, match="another version"):
        load_state(path)
