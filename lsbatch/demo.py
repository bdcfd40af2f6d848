"""The tour: a real Label Studio, 1,797 pictures of digits, 400 of them annotated, and the verbs that everyone runs."""

from __future__ import annotations

import io
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from lsbatch.config import load
from lsbatch.entities import Task
from lsbatch.errors import ConfigError, TransientError
from lsbatch.local_server import LocalServer, start
from lsbatch.operations.retrain import RetrainReport
from lsbatch.ports import Selection
from lsbatch.progress import Progress
from lsbatch.report import RunReport
from lsbatch.verbs import predict_project, retrain_project
from lsbatch.wiring import Bench
from lsbatch_connectors.label_studio import ConnectionOptions, LabelStudioClient, LabelStudioProject

__all__ = ["DemoReport", "demo"]

TITLE = "Handwritten digits"
LABELS = [str(digit) for digit in range(10)]
LABEL_CONFIG = (
    '<View><Image name="image" value="$image" zoom="true"/>'
    '<Choices name="digit" toName="image" showInLine="true">'
    + "".join(f'<Choice value="{label}"/>' for label in LABELS)
    + "</Choices></View>"
)
PICTURES, ANNOTATED = 1_797, 400
#: Pixels of a side, eight times the original's, so that people see something.
SIDE = 64
#: Django's limit for one request.
FILES_PER_REQUEST = 100
REQUEST_SECONDS = 120.0
MARK = ".lsbatch-demo"


@dataclass
class DemoReport:
    """What the demo did.

    Attributes:
        server: where it can be looked at.
        project: the project's id.
        retrained: the model.
        predicted: the run.
        agreement: share of predictions that equal the truth that was held back, in [0, 1].
        seconds: of the steps before.
    """

    server: LocalServer
    project: int
    retrained: RetrainReport
    predicted: RunReport
    agreement: float
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table for people."""
        counts = [row for row in self.predicted.rows() if not row[0].startswith("seconds")]
        times = {**self.seconds, **self.predicted.seconds}
        return [
            *counts,
            ("agreement", f"{self.agreement:.3f} with the truth that was held back"),
            *((f"seconds {name}", f"{seconds:.1f}") for name, seconds in times.items()),
            ("project", f"{self.server.url}/projects/{self.project}/data"),
            ("login", f"{self.server.username} / {self.server.password}"),
        ]


@contextmanager
def demo(folder: Path, progress: Progress, *, pictures: int = PICTURES) -> Iterator[DemoReport]:
    """Run the tour; Label Studio is up until the context ends. What an earlier tour left in ``folder`` is removed.

    Args:
        folder: where everything lies.
        progress: told how far it is.
        pictures: only the first so many; more than are annotated.

    Raises:
        ConfigError: ``folder`` holds something else, or Label Studio is not installed.
        LsbatchError: a step failed.
    """
    _clear(folder)
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    progress.say("starting Label Studio, which makes its database first: about half a minute")
    with start(folder / "label-studio") as server:
        seconds["start Label Studio"] = time.perf_counter() - began
        client = LabelStudioClient(ConnectionOptions(server.url, server.token))
        with _timed(seconds, "upload and annotate"):
            project, truth = _fill(client, server, progress, pictures)
        bench = Bench(
            load(
                None,
                environ={"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": server.token},
                flags={"project": project, "selection.untouched_only": True, "import.activate": True},
                cwd=folder,
            )
        )
        with _timed(seconds, "retrain"):
            retrained = retrain_project(bench, progress)
        predicted = predict_project(bench, progress)
        agreement = _agreement(client, project, predicted.model_version, truth)
        yield DemoReport(server, project, retrained, predicted, agreement, seconds)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def _clear(folder: Path) -> None:
    """An empty folder that is marked as ours; only such a one is ever removed."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).exists():
            raise ConfigError(f"{folder} holds something else than a demo", hint="Give an empty --folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def digits() -> tuple[list[bytes], list[str]]:
    """The 1,797 pictures as PNG files, and the digit that each shows."""
    from sklearn.datasets import load_digits

    found = load_digits()
    files = []
    for pixels in found.images:
        file = io.BytesIO()
        # Ink is 16 on a ground of 0.
        picture = Image.fromarray((255 - pixels * 255 / 16).astype("uint8"))
        picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
        files.append(file.getvalue())
    return files, [LABELS[digit] for digit in found.target]


def _fill(
    client: LabelStudioClient, server: LocalServer, progress: Progress, pictures: int
) -> tuple[int, dict[int, str]]:
    """Make the project; its id, and the truth of each task."""
    files, truths = digits()
    files = files[:pictures]
    project = int(client.write("POST", "/api/projects/", {"title": TITLE, "label_config": LABEL_CONFIG})["id"])
    with progress.stage("upload", len(files)) as meter:
        uploaded: dict[int, str] = {}
        for first in range(0, len(files), FILES_PER_REQUEST):
            part = files[first : first + FILES_PER_REQUEST]
            uploaded |= _upload(client, server, project, part, first)
            meter.advance(len(part))
    annotated = set(random.Random(0).sample(range(len(files)), ANNOTATED))  # noqa: S311 - a fixed choice, no secret
    rows = []
    for number, uri in sorted(uploaded.items()):
        row: dict[str, Any] = {"data": {"image": uri}}
        if number in annotated:
            row["annotations"] = [{"result": [_region(truths[number])]}]
        rows.append(row)
    client.write("POST", f"/api/projects/{project}/import", rows)
    tasks: list[Task] = []
    for page in LabelStudioProject(client, project).pages(Selection()):
        tasks += page.tasks
    return project, {int(task.id): truths[_number(str(task.data["image"]))] for task in tasks}


def _region(label: str) -> dict[str, Any]:
    return {"from_name": "digit", "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def _number(uri: str) -> int:
    """Which picture: the file's name ends with it."""
    return int(uri.rpartition("-")[2].removesuffix(".png"))


def _upload(
    client: LabelStudioClient, server: LocalServer, project: int, files: Sequence[bytes], first: int
) -> dict[int, str]:
    """Upload some files and return the URI of each by its number; no tasks are made yet."""
    parts = [
        # A field of its own for each: of several files in one field, Label Studio keeps the last.
        (f"file{number}", (f"digit-{number:04d}.png", content, "image/png"))
        for number, content in enumerate(files, start=first)
    ]
    address = f"{server.url}/api/projects/{project}/import"
    headers = {"Authorization": client.authorization()}
    answer = httpx.post(
        address, files=parts, params={"commit_to_project": "false"}, headers=headers, timeout=REQUEST_SECONDS
    )
    if answer.status_code >= 300:
        raise TransientError(f"the upload was answered with {answer.status_code}: {answer.text[:300]}")
    ids = answer.json()["file_upload_ids"]
    rows = client.get(f"/api/projects/{project}/file-uploads", {"ids": str(ids)})
    return {_number(row["file"]): "/data/" + row["file"].removeprefix("/data/") for row in rows if row["id"] in ids}


def _agreement(client: LabelStudioClient, project: int, version: str, truth: dict[int, str]) -> float:
    """Share of the predictions on the server that equal the truth."""
    rows = [row for row in client.get("/api/predictions/", {"project": project}) if row["model_version"] == version]
    right = sum(row["result"][0]["value"]["choices"] == [truth[row["task"]]] for row in rows)
    return right / len(rows) if rows else 0.0
