"""What is loaded beside the window does not get in the way of what is used already."""

from __future__ import annotations

import pint
import pytest
from pint.registry import LazyRegistry

from napari_cryorefine.warm import _Units


@pytest.fixture
def registry_in_use():
    """Return the one that is in use, which is put back."""
    before = pint.get_application_registry().get()
    yield before
    pint.set_application_registry(before)


def test_units_made_beside_the_window_are_used_where_none_are(registry_in_use):
    pint.set_application_registry(LazyRegistry())
    units = _Units()
    units.make()
    units.take()
    registry = pint.get_application_registry().get()
    assert not isinstance(registry, LazyRegistry)
    assert registry("1 nm").to("angstrom").magnitude == pytest.approx(10)


def test_units_that_are_in_use_stay(registry_in_use):
    used = pint.UnitRegistry()
    pint.set_application_registry(used)
    units = _Units()
    units.make()
    units.take()
    assert pint.get_application_registry().get() is used
