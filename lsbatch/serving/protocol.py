"""What Label Studio sends to a live backend, and what it is answered (``ml/api_connector.py`` of Label Studio 1.23).

Servers of all 1.x versions and people send a little more or less, so that what is not needed is neither required nor
read. What must not be used is not even parsed: the login of ``params``, the token and the address of ``/setup``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, ValidationError
from pydantic_core import from_json

from lsbatch.entities import DeadLetter, Outcome, Task, TaskId
from lsbatch.serving.request_error import RequestError

__all__ = [
    "JobRequest",
    "PredictRequest",
    "SetupRequest",
    "ValidateRequest",
    "WebhookRequest",
    "answer",
    "interactive_answer",
    "mistakes",
    "project_id",
    "read_predict_request",
]

#: Largest id of a task: Label Studio's are 64 bits wide.
MOST_ID = 2**63 - 1
#: As long as the text of such an id may be, and one longer.
DIGITS = 20
#: Of a body's mistakes, so many are named.
MOST_MISTAKES = 20
#: So many tasks are read at once; between them others have their turn.
SLICE = 2_000


def _sayable(text: str) -> str:
    """JSON can hold half a character, which nothing that is sent can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character (a lone surrogate)") from error
    return text


Text = Annotated[str, AfterValidator(_sayable)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")


class LiveTask(_Request):
    """A task as it is stored, URIs unresolved."""

    id: int | None = Field(None, ge=0, le=MOST_ID)
    data: dict[str, Any]


class PredictParams(_Request):
    """``params``; ``context`` holds what an annotator drew or marked, null in a normal call."""

    context: dict[str, Any] | None = None


class PredictRequest(_Request):
    """``/predict``. ``project`` is ``<id>.<time of its making>``."""

    tasks: list[LiveTask]
    project: Text | StrictInt | None = None
    label_config: Text | None = None
    params: PredictParams | None = None

    @property
    def context(self) -> dict[str, Any] | None:
        """Of an interactive request."""
        return None if self.params is None else self.params.context

    def found(self) -> list[Task]:
        """The tasks; one without an id, such as a person sends, is task 0."""
        return [Task(TaskId(task.id or 0), task.data) for task in self.tasks]


class SetupRequest(_Request):
    """``/setup``."""

    project: Text | StrictInt | None = None
    label_config: Text | None = Field(None, alias="schema")


class WebhookRequest(_Request):
    """``/webhook``: what happened, and in which project."""

    action: Text
    project: dict[str, Any] | None = None
    annotation: Any = None

    @property
    def annotations(self) -> int:
        """How many annotations it tells of: events of several carry a list."""
        return len(self.annotation) if isinstance(self.annotation, list) else 1


class ValidateRequest(_Request):
    """``/validate``."""

    config: Text


class JobRequest(_Request):
    """``/job_status``."""

    job: Annotated[Text, Field(max_length=200)]


def mistakes(errors: Iterable[Mapping[str, Any]], first: int = 0) -> list[dict[str, Any]]:
    """What is wrong with a body, without what was sent: that may hold a token, be long, or be no JSON.

    Args:
        errors: pydantic's.
        first: place of the first of the tasks that were read.
    """
    found = []
    for error, _ in zip(errors, range(MOST_MISTAKES), strict=False):
        place = [part + first if at == 1 and isinstance(part, int) else part for at, part in enumerate(error["loc"])]
        found.append({"type": error["type"], "loc": place, "msg": error["msg"]})
    return found


async def read_predict_request(body: bytes, allowed: Callable[[int], object]) -> PredictRequest:
    """The request in the body of ``/predict``; a large one lets others have their turn while it is read.

    Args:
        body: as it came.
        allowed: told how many tasks there are before they are looked at; raises where these are too many.

    Raises:
        RequestError: it is none (422), or holds too many tasks.
    """
    try:
        content = from_json(body)
    except ValueError as error:
        raise RequestError(422, [{"type": "json_invalid", "loc": ["body"], "msg": f"Invalid JSON: {error}"}]) from error
    tasks = content.get("tasks") if isinstance(content, dict) else None
    first = 0
    try:
        if not isinstance(tasks, list):
            return PredictRequest.model_validate(content)
        allowed(len(tasks))
        request = PredictRequest.model_validate({**content, "tasks": tasks[:SLICE]})
        for first in range(SLICE, len(tasks), SLICE):
            await asyncio.sleep(0)
            request.tasks += PredictRequest.model_validate({"tasks": tasks[first : first + SLICE]}).tasks
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestError(422, mistakes(found, first)) from error
    return request


def project_id(project: object) -> int | None:
    """The id in ``<id>.<time>``, in an id alone, or in a project's own JSON; None where there is none."""
    if isinstance(project, Mapping):
        project = project.get("id")
    if not isinstance(project, str | int):
        return None
    # More digits than an id has are not worth reading, and Python refuses to from some point on.
    if isinstance(project, int) and project > MOST_ID:
        return MOST_ID
    text = str(project).partition(".")[0]
    return min(int(text[:DIGITS]), MOST_ID) if text.isascii() and text.isdigit() else None


def answer(outcomes: Sequence[Outcome], version: str) -> dict[str, Any]:
    """The answer of ``/predict``: one dict for each task, in their order.

    For a task that failed it holds no ``result``: Label Studio then stores nothing for it, and logs the dict.
    """
    return {"results": [_item(outcome) for outcome in outcomes], "model_version": version}


def interactive_answer(outcomes: Sequence[Outcome], version: str) -> dict[str, Any]:
    """As ``answer``, for a person who drew something: Label Studio's page needs a ``result``, if an empty one."""
    items = [_item(outcome) for outcome in outcomes]
    return {"results": [{"result": [], "model_version": version, **item} for item in items], "model_version": version}


def _item(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, DeadLetter):
        return {"error": outcome.cause}
    return {"result": list(outcome.result), "score": outcome.score, "model_version": outcome.model_version}
