"""What CtfRefine tells the person who watches: once, and in short where there are many optics groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cryorefine.jobs.base import Event, Figures, Notice
from cryorefine.refine.ctf_refinement import Finding, OpticsValues

_MANY = 4
"""Optics groups beyond these are summed up; a microscope that shifts its beam makes a hundred of them."""


@dataclass
class Teller:
    """Remembers what has been said."""

    _said: set[str] = field(default_factory=set)
    _by_subject: Counter[str] = field(default_factory=Counter)

    def finding(self, finding: Finding) -> list[Event]:
        """Say a sentence, unless it was said before or many of its subject were."""
        if finding.message in self._said:
            return []
        self._said.add(finding.message)
        self._by_subject[finding.subject] += 1
        if self._by_subject[finding.subject] > _MANY and not finding.warning:
            return []
        return [Notice(finding.message, finding.warning)]

    def rest(self) -> list[Event]:
        """Say where the sentences are that were left out."""
        left_out = sum(max(0, count - _MANY) for count in self._by_subject.values())
        if not left_out:
            return []
        return [Notice(f"{left_out} more sentences about other optics groups are in logfile.pdf.")]

    def beam_tilts(self, round: int, optics: Sequence[OpticsValues]) -> list[Event]:
        """Tell the beam tilts where they are new: of each group, or the range of many."""
        used = [values for values in optics if values.particles > 0]
        figures: dict[str, float | int | str] = {}
        if len(used) <= _MANY:
            for values in used:
                for axis, tilt, sigma in zip("xy", values.beam_tilt, values.sigma_beam_tilt, strict=True):
                    name = f"beam tilt {axis} of {values.name} (mrad)"
                    figures[name] = f"{tilt:.3f} ± {sigma:.3f}" if np.isfinite(sigma) else "not measurable"
        else:
            for place, axis in enumerate("xy"):
                tilts = [float(values.beam_tilt[place]) for values in used]
                sigma = float(np.median([values.sigma_beam_tilt[place] for values in used]))
                name = f"beam tilt {axis} of {len(used)} optics groups (mrad)"
                figures[name] = f"{min(tilts):.3f} to {max(tilts):.3f}, mostly ± {sigma:.3f}"
        words = str(figures)
        if words in self._said:
            return []
        self._said.add(words)
        return [Figures({"round": round, **figures})]
