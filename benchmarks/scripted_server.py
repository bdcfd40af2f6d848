"""A server that speaks Label Studio's endpoints for one project of any size.

It answers exactly what lsbatch asks for and refuses the rest, so that it cannot be wrong in silence. Runs as a process
of its own: ``python -m benchmarks.scripted_server --tasks 1000000`` prints its address.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.answering import JsonHandler
from benchmarks.process import environment
from benchmarks.scripted_project import NoSuchPageError, NotScriptedError, Project, UnknownTaskError

__all__ = ["scripted_server"]

STOP_SECONDS = 10


class _Handler(JsonHandler):
    """HTTP around the project."""

    project: Project

    def get(self) -> None:
        """See ``JsonHandler.get``."""
        address = urlsplit(self.path)
        match address.path.strip("/").split("/"):
            case ["health"]:
                self.answer(200, {"status": "UP"})
            case ["api", "tasks"]:
                params = {name: values[-1] for name, values in parse_qs(address.query).items()}
                try:
                    self.answer_text(200, self.project.page(params))
                except NoSuchPageError:
                    self.answer(404, {"status_code": 404, "detail": "Invalid page."})
                except NotScriptedError as error:
                    self._not_scripted(str(error))
            case ["api", "projects", _]:
                self.answer(200, self.project.about())
            case ["api", "projects", _, "model-versions"]:
                self.answer(200, self.project.versions())
            case _:
                self._not_scripted(self.path)

    def post(self, body: Any) -> None:
        """See ``JsonHandler.post``."""
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "projects", _, "import", "predictions"]:
                self._store(body)
            case ["api", "predictions"]:
                self._store([body])
            case _:
                self._not_scripted(self.path)

    def _store(self, rows: list[dict[str, Any]]) -> None:
        try:
            self.answer(201, {"created": self.project.store(rows)})
        except UnknownTaskError as error:
            self.answer(400, {"status_code": 400, "detail": str(error)})

    def _not_scripted(self, what: str) -> None:
        # A refusal for good: a 5xx would be tried again and again.
        self.answer(400, {"status_code": 400, "detail": f"the scripted server does not know {self.command} {what}"})


@contextmanager
def scripted_server(tasks: int) -> Iterator[str]:
    """Run one as a process of its own; its address."""
    command = [sys.executable, "-m", "benchmarks.scripted_server", "--tasks", str(tasks)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise SystemExit(f"the scripted server did not start: it ended with {process.wait()}")
            yield url
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, required=True)
    _Handler.project = Project(parser.parse_args().tasks)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
