#!/bin/sh
# Install Debian packages if this account may, else print the line to type and fail.
set -eu
if ! command -v apt-get >/dev/null; then
    echo "Please install what Debian calls: $*" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=sudo
else
    printf 'System packages are missing; please type:\n  sudo apt-get install -y --no-install-recommends %s\n' "$*" >&2
    exit 1
fi
echo "Installing system packages: $*"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends "$@" >/dev/null
