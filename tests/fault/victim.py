"""A run that is killed at a moment which the proxy knows."""

from __future__ import annotations

import queue

from fault.driver import KILLED, Done, Driver
from fault.scene import Scene

__all__ = ["Victim"]


class Victim:
    """A run that is to be killed by a request of its own."""

    def __init__(self) -> None:
        self._driver: queue.Queue[Driver] = queue.Queue()

    def start(self, scene: Scene, **environ: str) -> Done:
        """Run it to its end.

        Raises:
            AssertionError: it was not killed.
        """
        driver = scene.start(plugins=(), **environ)
        self._driver.put(driver)
        done = driver.done()
        assert done.code == KILLED, done.stderr
        return done

    def kill(self) -> None:
        """Kill it; called by the proxy."""
        self._driver.get(timeout=10).kill()
