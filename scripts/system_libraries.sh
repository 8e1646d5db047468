#!/bin/sh
# See to the libraries that Qt and OpenGL need, and a screen for tests (Xvfb). Where they are all
# there already, this takes an instant and no network. Where they cannot be installed, it goes on:
# everything but napari's windows works without them.
set -eu
[ "$(uname)" = Linux ] || exit 0

known=$( (ldconfig -p || /sbin/ldconfig -p) 2>/dev/null)
missing=
need() { # library package
    case $known in *"$1"*) ;; *) missing="$missing $2" ;; esac
}
need libGL.so.1 libgl1
need libEGL.so.1 libegl1
need libOpenGL.so.0 libopengl0
need libGLX_mesa.so.0 libglx-mesa0
need libEGL_mesa.so.0 libegl-mesa0
need libxkbcommon-x11.so.0 libxkbcommon-x11-0
need libxcb-cursor.so.0 libxcb-cursor0
need libxcb-icccm.so.4 libxcb-icccm4
need libxcb-image.so.0 libxcb-image0
need libxcb-keysyms.so.1 libxcb-keysyms1
need libxcb-randr.so.0 libxcb-randr0
need libxcb-render-util.so.0 libxcb-render-util0
need libxcb-shape.so.0 libxcb-shape0
need libxcb-xinerama.so.0 libxcb-xinerama0
need libxcb-xkb.so.1 libxcb-xkb1
need libdbus-1.so.3 libdbus-1-3
need libfontconfig.so.1 libfontconfig1
need libglib-2.0.so.0 libglib2.0-0
command -v Xvfb >/dev/null || missing="$missing xvfb xauth"
ls /usr/lib/*/dri/swrast_dri.so /usr/lib/*/libgallium*.so 2>/dev/null | grep -q . || missing="$missing libgl1-mesa-dri"
[ -n "$(ls -A /usr/share/fonts 2>/dev/null)" ] || missing="$missing fonts-dejavu-core"

if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # one word a package
    sh "$(dirname "$0")/apt_install.sh" $missing || echo "Going on without them: napari's windows may not open." >&2
fi
