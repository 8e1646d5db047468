"""Print the oldest version of each dependency that pyproject.toml allows, as constraints for pip.

``make test-oldest`` installs these and runs the plugin's tests with them, so that what pyproject.toml
promises is what was tried.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def oldest(requirements: list[str]) -> list[str]:
    """Return "name==version" for every requirement with a lower limit."""
    constraints = []
    for requirement in map(Requirement, requirements):
        constraints += [
            f"{requirement.name}=={limit.version}"
            for limit in requirement.specifier
            if limit.operator == ">="
        ]
    return constraints


def main() -> None:
    """Print the constraints of the program with its windows and of the tests."""
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = described["project"]
    for line in oldest([*project["dependencies"], *project["optional-dependencies"]["napari"]]):
        print(line)


if __name__ == "__main__":
    main()
