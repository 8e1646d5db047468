#!/bin/sh
# Make the Python environment in the folder $1 and install the project and its tools into it.
set -eu
folder=$1

for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        found=$python
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "Python 3.11 or newer is needed and was not found; name it like this: make PYTHON=/path/to/python3" >&2
    exit 1
fi

if ! [ -x "$folder/bin/python" ] || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$folder"
    if ! "$found" -m venv "$folder" >/dev/null 2>&1; then
        # Debian and Ubuntu keep what venv needs in a package of its own.
        rm -rf "$folder"
        version=$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        sh "$(dirname "$0")/apt_install.sh" "python$version-venv" || exit 1
        "$found" -m venv "$folder"
    fi
fi

echo "Installing into $folder (once; a few minutes)"
"$folder/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
"$folder/bin/python" -m pip install --quiet --editable ".[napari]" --group dev
