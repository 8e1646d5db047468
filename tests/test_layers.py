"""The library can be used where there is no screen, no GPU and nothing to draw with."""

from __future__ import annotations

import json
import subprocess
import sys

NOT_AT_IMPORT = ["napari", "qtpy", "magicgui", "pyqtgraph", "PySide6", "cupy", "matplotlib"]


def test_no_module_of_the_library_loads_windows_gpu_or_plots_when_imported() -> None:
    script = (
        "import sys, json, pkgutil, importlib, cryorefine\n"
        "for module in pkgutil.walk_packages(cryorefine.__path__, 'cryorefine.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = json.loads(done.stdout)

    assert "cryorefine.jobs.refine3d" in loaded
    assert [name for name in NOT_AT_IMPORT if name in loaded] == []
