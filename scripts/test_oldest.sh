#!/bin/sh
# Run the tests of the plugin with the oldest versions of everything that pyproject.toml allows, in an
# environment of their own. $1: the programs of the usual environment; $2: the folder of the other one.
set -eu
usual=$1
folder=$2
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
"$usual/python" scripts/oldest.py >"$constraints"
[ -x "$folder/bin/python" ] || "$usual/python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
"$folder/bin/python" -m pip install --quiet --editable ".[napari]" --constraint "$constraints" \
    "pytest>=8" pytest-timeout "pytest-qt>=4.5" "pytest-xvfb>=3.1"
echo "With: $(tr '\n' ' ' <"$constraints")"
# Left by os._exit: when Python takes these old libraries down after tests, C++ may abort, though all have passed.
"$folder/bin/python" -c 'import os, sys, pytest; code = pytest.main(sys.argv[1:]); sys.stdout.flush(); os._exit(code)' \
    -m "not slow" -p no:cacheprovider tests/napari
