"""What the live backend says of itself (OpenAPI) holds, for requests that nobody would think of too."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from fault.waiting import until
from lsbatch.serving import app as serving_app
from serving_support import Versions, configured, served

load_all_checks()
#: An unknown training, a server of another project, and too much at once are no faults of the request's form.
NOT_CHECKED = [CHECKS.get_one("positive_data_acceptance")]


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a running server, whose trainings end at once."""
    folder = tmp_path_factory.mktemp("schema")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_app, "training_command", lambda: [sys.executable, "-c", "print('{}')"])
        app = serving_app.create_app(configured(folder), source=Versions(served(folder), known=["v1"]))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until(lambda: server.started and app.state.backend.ready, seconds=60)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        server.should_exit = True
        thread.join(30)


def test_every_answer_is_as_it_is_described(description: Any) -> None:
    for found in description.get_all_operations():
        operation = found.ok()
        asked = 0

        # Fifteen requests each, the same in every run.
        @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(excluded_checks=NOT_CHECKED)

        ask()
        assert asked, operation.label
