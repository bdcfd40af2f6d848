"""A pipeline that stops in the middle of a chunk until it is told to go on, in whatever process it runs."""

from __future__ import annotations

from fault.scene import Scene
from fault.waiting import until

__all__ = ["Gate"]

PIPELINE = """
import os
import pathlib
import threading

from mine import Told

HERE = pathlib.Path(__file__).parent


class Gated(Told):
    def predict(self, tasks):
        if any("number5" in task.data["text"] for task in tasks):
            beside = HERE / f"reached-{os.getpid()}"
            beside.write_text(str(os.getpid()))
            beside.rename(HERE / "reached")
            pause = threading.Event()
            while not (HERE / "open").exists():
                pause.wait(0.01)
        return super().predict(tasks)
"""


class Gate:
    """The gate of a scene; runs with ``arguments`` stop at it, in the chunk of the sixth task."""

    arguments = ("--pipeline", "gated:Gated")

    def __init__(self, scene: Scene) -> None:
        self._folder = scene.folder
        (scene.folder / "gated.py").write_text(PIPELINE)

    def reached(self) -> int:
        """Wait until a process stands at the gate; its id."""
        reached = self._folder / "reached"
        until(reached.exists, seconds=60)
        return int(reached.read_text())

    def open(self) -> None:
        """Let it through, and everyone after it."""
        (self._folder / "open").touch()
