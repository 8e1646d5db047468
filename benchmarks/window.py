"""How long the window stands still while the live tools work: the longest pause between heartbeats.

A timer of Qt beats every 5 ms in the real viewer; what keeps it from beating keeps the window from
answering. Each step of a person's work is measured in a fresh process, so that "first" means first.
Prints for every step the longest pause, the most processor time of the window's thread between two beats
(which other programs do not lengthen, but drawing without a graphics card does), and how long until
everything is shown. Needs a display or a virtual one:

    xvfb-run -a -s "-screen 0 1600x1200x24" python benchmarks/window.py [--size 256] [--where 0.1]

The line "turned, nothing else" is what napari needs to draw the surface, which is long where OpenGL runs
on the processor. With --where, the places are listed where the window stood still longer than that many
seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BEAT = 0.005
DOCKS = ("Rescale map", "Refine3D", "MaskCreate", "PostProcess", "LocalRes", "Directional FSC")


class Heartbeat:
    """Beats in the thread of the window and remembers the longest pause."""

    def __init__(self, where: float) -> None:
        from qtpy.QtCore import QTimer

        self.start()
        self._where, self._main = where, threading.main_thread().ident
        self._told = ""
        self._timer = QTimer()
        self._timer.timeout.connect(self._beat)
        self._timer.start(int(BEAT * 1000))
        if where:
            threading.Thread(target=self._look, daemon=True).start()

    def start(self) -> None:
        """Forget the pauses so far."""
        self.last, self.longest = time.perf_counter(), 0.0
        self._worked, self.most_worked = time.thread_time(), 0.0

    def _beat(self) -> None:
        now = time.perf_counter()
        pause = now - self.last
        self.longest = max(self.longest, pause)
        worked = time.thread_time()
        self.most_worked = max(self.most_worked, worked - self._worked)
        self._worked = worked
        if self._told:
            print(f"    stood still {pause:.2f} s at:\n{self._told}", file=sys.stderr)
            self._told = ""
        self.last = now

    def _look(self) -> None:
        while True:
            time.sleep(self._where / 4)
            if time.perf_counter() - self.last > self._where * 0.6 and not self._told:
                frame = sys._current_frames()[self._main]
                ours = traceback.extract_stack(frame)[-14:]
                self._told = "".join(f"      {f.filename[-60:]}:{f.lineno} {f.name}\n" for f in ours)


def settle(busy: Callable[[], bool], least: float = 0.3) -> float:
    """Let Qt work until nothing is busy, and at least so long; return the seconds until it was not."""
    from qtpy.QtWidgets import QApplication

    began = time.perf_counter()
    done = began
    while (working := busy()) or time.perf_counter() < max(done + 2 * BEAT, began + least):
        QApplication.processEvents()
        time.sleep(0.001)
        if working:
            done = time.perf_counter()
    return done - began


def by_hand(action: Callable[[], object]) -> None:
    """Do something in Qt's own loop, as a menu does: what waits for a person and not for a script."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(0, action)
    QTimer.singleShot(0, loop.quit)
    loop.exec()


def add_map(viewer: Any, path: Path) -> None:
    """Show a map, for which napari has to load much the first time."""
    from napari_cryorefine import add_map

    add_map(viewer, path)
    settle(lambda: False)


def write_maps(folder: Path, size: int) -> tuple[Path, Path]:
    """Write two half maps of noisy blobs and a mask around them."""
    from cryorefine.io.mrc import write_map
    from cryorefine.maps import filters, masks

    rng = np.random.default_rng(1)
    shape = (size,) * 3
    ball = masks.soft_sphere(shape, size / 4, size / 20)
    structure = filters.lowpass(rng.standard_normal(shape, dtype=np.float32) * ball, 1.4, 8.0)
    structure += 0.3 * ball * float(structure.std())
    structure /= structure.std()
    for half in (1, 2):
        noise = rng.standard_normal(shape, dtype=np.float32)
        write_map(folder / f"half{half}_unfil.mrc", structure + 0.5 * noise, 1.4)
    write_map(folder / "mask.mrc", ball, 1.4)
    return folder / "half1_unfil.mrc", folder / "mask.mrc"


def say(step: str, heart: Heartbeat, whole: float) -> None:
    """Print one line of the table."""
    print(f"{step:44s} {heart.longest:8.2f} {heart.most_worked:8.2f} {whole:8.2f}", flush=True)


def docks(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Open every form."""
    for name in DOCKS:
        heart.start()
        began = time.perf_counter()
        viewer.window.add_plugin_dock_widget("napari-cryorefine", name)
        opened = time.perf_counter() - began
        settle(lambda: False)
        say(f"dock {name}", heart, opened)


def drag(tool: Any, heart: Heartbeat, step: str, move: Callable[[int], None], times: int = 12) -> None:
    """Move something step by step, waiting for each update, then quickly without waiting."""
    updates = []
    heart.start()
    for number in range(times):
        move(number)
        updates.append(settle(lambda: tool.busy, 0.0))
    say(f"{step}, step by step", heart, float(np.median(updates)))
    heart.start()
    end = time.perf_counter()
    for number in range(4 * times):
        move(times + number)
        settle(lambda: False, 0.03)
    settle(lambda: tool.busy)
    say(f"{step}, dragged", heart, time.perf_counter() - end)


def masks_by_eye(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Preview a mask, and move its threshold over slices and in 3D."""
    add_map(viewer, half)
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "MaskCreate")
    settle(lambda: False, 3.0)
    form.page.update(input=half, lowpass=15.0, extend=3.0, soft_edge=6.0)
    tool = form.tool
    heart.start()
    tool.preview.value = True
    say("mask: first preview", heart, settle(lambda: tool.busy))
    tool.take_suggestion()
    settle(lambda: tool.busy)
    start = tool.level.value

    def move(number: int) -> None:
        tool.level.value = start + 3 * (number % 20) + 1

    drag(tool, heart, "mask: threshold over slices", move)
    for layer in viewer.layers:
        if layer.metadata.get("cryorefine") == "map":
            layer.visible = False
    heart.start()
    viewer.dims.ndisplay = 3
    say("mask: turn to 3D", heart, settle(lambda: tool.busy, 1.0))
    heart.start()
    for angle in range(20):
        viewer.scene.camera.angles = (12.0, 3.0 * angle, 8.0)
        settle(lambda: False, 0.1)
    say("3D: turned, nothing else", heart, 0.0)
    drag(tool, heart, "mask: threshold in 3D", move)
    heart.start()
    form.page["keep_largest"].value = 1
    say("mask: keep the largest island", heart, settle(lambda: tool.busy))


def fits_tried(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Try masks and fits."""
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "PostProcess")
    settle(lambda: False, 3.0)
    form.page.update(half_map=half, mask=mask)
    heart.start()
    form.explore()
    explorer = viewer.window.dock_widgets["Try masks and fits"]
    say("fit: first", heart, settle(lambda: explorer.busy))

    def move(number: int) -> None:
        explorer.guinier.show_range(10.0 - 0.1 * (number % 30), 0.0)
        explorer._on_range(10.0 - 0.1 * (number % 30), 0.0)

    drag(explorer, heart, "fit: range", move, times=6)
    heart.start()
    explorer.mask.setCurrentIndex(0)
    explorer.take_mask()
    say("fit: another mask", heart, settle(lambda: explorer.busy))


def results_opened(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Show a finished job."""
    folder = half.parent / "PostProcess" / "job001"
    if not folder.exists():
        folder.mkdir(parents=True)
        for name in ("postprocess", "postprocess_masked"):
            shutil.copy(half, folder / f"{name}.mrc")
        (folder / "RELION_JOB_EXIT_SUCCESS").touch()
    add_map(viewer, mask)
    _, form = viewer.window.add_plugin_dock_widget("napari-cryorefine", "PostProcess")
    settle(lambda: False, 3.0)
    heart.start()
    form.watch(folder)
    say("results: two maps", heart, settle(lambda: form.is_running))


def write_refinement(folder: Path, half: Path, iterations: int = 6, particles: int = 100_000) -> None:
    """Write what RELION would leave of a refinement: the same maps and particles in every iteration."""
    import pandas as pd

    from cryorefine.io.star import write_star

    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    shells = np.arange(129)
    curve = pd.DataFrame(
        {"rlnResolution": shells / 358.4, "rlnGoldStandardFsc": 1 / (1 + (shells / 60) ** 4)}
    )
    angles = pd.DataFrame(
        {
            "rlnImageName": [f"{number + 1:06d}@stack.mrcs" for number in range(particles)],
            "rlnOpticsGroup": 1,
            "rlnAngleRot": rng.uniform(-180, 180, particles).round(3),
            "rlnAngleTilt": rng.uniform(0, 180, particles).round(3),
        }
    )
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.4]})
    classes = pd.DataFrame({"rlnAccuracyRotations": [2.0], "rlnAccuracyTranslationsAngst": [1.0]})
    for number in range(1, iterations + 1):
        root = folder / f"run_it{number:03d}"
        general = {"rlnCurrentResolution": 20.0 - number, "rlnAveragePmax": 0.5}
        blocks = {"model_general": general, "model_classes": classes, "model_class_1": curve}
        write_star(root.with_name(f"{root.name}_half1_model.star"), blocks)
        sampling = {"rlnHealpixOrder": 2, "rlnOffsetStep": 2.0, "rlnSymmetryGroup": "D2"}
        write_star(root.with_name(f"{root.name}_sampling.star"), {"sampling_general": sampling})
        write_star(root.with_name(f"{root.name}_data.star"), {"optics": optics, "particles": angles})
        for name in ("half1", "half2"):
            os.link(half.with_name(f"{name}_unfil.mrc"), root.with_name(f"{root.name}_{name}_class001.mrc"))
        changes = {"rlnChangesOptimalOrientations": 3.0, "rlnChangesOptimalOffsets": 1.0}
        write_star(root.with_name(f"{root.name}_optimiser.star"), {"optimiser_general": changes})


def monitored(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Open the monitor on a refinement of 100,000 particles, and go through its iterations."""
    from napari_cryorefine.monitor import show_monitor

    folder = half.parent / "Refine3D" / "job001"
    if not folder.exists():
        write_refinement(folder, half)
    add_map(viewer, mask)
    heart.start()
    began = time.perf_counter()
    panel = show_monitor(viewer, folder)
    opened = time.perf_counter() - began
    say("monitor: opened", heart, opened + settle(lambda: panel.busy))
    settle(lambda: False, 4.0)

    def move(number: int) -> None:
        panel.slider.setValue(number % 6)

    drag(panel, heart, "monitor: iteration", move, times=6)


def write_particles(path: Path, particles: int = 100_000, micrographs: int = 400) -> None:
    """Write particles at random places on micrographs, with defocus and poses."""
    import pandas as pd

    from cryorefine.io.star import write_star

    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{number + 1:06d}@stack.mrcs" for number in range(particles)],
            "rlnMicrographName": [f"mic{number % micrographs:03d}.mrc" for number in range(particles)],
            "rlnOpticsGroup": 1,
            "rlnCoordinateX": rng.uniform(0, 4000, particles).round(1),
            "rlnCoordinateY": rng.uniform(0, 4000, particles).round(1),
            "rlnDefocusU": rng.uniform(8000, 22000, particles).round(1),
            "rlnDefocusV": rng.uniform(8000, 22000, particles).round(1),
            "rlnDefocusAngle": 0.0,
        }
    )
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["one"],
            "rlnImagePixelSize": [1.4],
            "rlnMicrographOriginalPixelSize": [1.4],
            "rlnImageSize": [256],
            "rlnImageDimensionality": [2],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
        }
    )
    write_star(path, {"optics": optics, "particles": table})


def particles_opened(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Open 100,000 particles, and go through their micrographs."""
    path = half.with_name("particles.star")
    if not path.exists():
        write_particles(path)
    viewer.window.add_plugin_dock_widget("napari-cryorefine", "Workflow")
    settle(lambda: False, 6.0)
    docks = viewer.window.dock_widgets
    heart.start()
    by_hand(lambda: viewer.open(path, plugin="napari-cryorefine"))
    say("particles: opened", heart, settle(lambda: "Particles" not in docks, 3.0))
    panel = docks["Particles"]

    def move(number: int) -> None:
        panel.slider.setValue(number)

    drag(panel, heart, "particles: micrograph", move, times=6)


def tilts_opened(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Open the tilt series that ship."""
    viewer.window.add_plugin_dock_widget("napari-cryorefine", "Workflow")
    settle(lambda: False, 6.0)
    heart.start()
    by_hand(lambda: viewer.open_sample("napari-cryorefine", "betagal-tilts"))
    say("tilt series: opened", heart, settle(lambda: len(viewer.layers) < 5, 3.0))


def map_opened(viewer: Any, heart: Heartbeat, half: Path, mask: Path) -> None:
    """Open a map as the first thing of all, and then another."""
    for number, name in enumerate(("first", "second"), start=1):
        heart.start()
        by_hand(lambda: viewer.open(half, plugin="napari-cryorefine"))
        say(f"map: {name}, opened", heart, settle(lambda number=number: len(viewer.layers) < number, 2.0))


STEPS = {
    "docks": docks,
    "mask": masks_by_eye,
    "fit": fits_tried,
    "results": results_opened,
    "monitor": monitored,
    "particles": particles_opened,
    "tilts": tilts_opened,
    "map": map_opened,
}


def main() -> None:
    """Measure one step in this process, or each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--where", type=float, default=0.0)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--maps", type=Path, help="folder of the maps, made anew unless given")
    options = parser.parse_args()
    if options.step is None:
        import subprocess

        print(f"{'step':44s} {'pause/s':>8s} {'work/s':>8s} {'whole/s':>8s}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            write_maps(Path(folder), options.size)
            for step in STEPS:
                words = ["--step", step, "--maps", folder, "--where", str(options.where)]
                subprocess.run([sys.executable, __file__, *words], check=True)
        return
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # forms as they are the first time
    import napari

    from napari_cryorefine import collector

    collector.PAUSE = 3_600_000  # a person would move the mouse, and nothing be collected meanwhile
    viewer = napari.Viewer()
    viewer.window.resize(1500, 1050)
    heart = Heartbeat(options.where)
    settle(lambda: False, 2.0)
    STEPS[options.step](viewer, heart, options.maps / "half1_unfil.mrc", options.maps / "mask.mrc")
    viewer.close()


if __name__ == "__main__":
    main()
