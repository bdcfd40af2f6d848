"""``make bench``: lsbatch from end to end against the raw requests that any program would need, on one Label Studio."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lsbatch.local_server import LocalServer, start

LABELS = ("billing", "delivery", "praise", "returns", "other")
CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="topic" toName="text">'
    + "".join(f'<Choice value="{label}"/>' for label in LABELS)
    + "</Choices></View>"
)
WORDS = {
    "billing": "invoice charged twice card amount wrong bank statement total",
    "delivery": "parcel courier late tracking address door never arrived",
    "praise": "great thank you friendly service excellent happy recommend",
    "returns": "send back refund box label broken replacement exchange",
    "other": "question opening hours store phone number website account",
}
COMMON = "the a my was is with for and please order yesterday again today still about your team"
ANNOTATED = 500
#: The page size of the floor's export.
PAGE = 5_000


@dataclass
class Floor:
    """Seconds of the raw requests."""

    export: float
    write: float

    @property
    def total(self) -> float:
        return self.export + self.write


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Made-up messages with their label, the same for the same seed."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        label = LABELS[number % len(LABELS)]
        words = chance.choices(WORDS[label].split(), k=4) + chance.choices(COMMON.split(), k=26)
        chance.shuffle(words)
        found.append((" ".join(words), label))
    return found


def region(label: str) -> dict[str, Any]:
    """A choice, as Label Studio writes it."""
    return {"from_name": "topic", "to_name": "text", "type": "choices", "value": {"choices": [label]}}


def make_project(http: httpx.Client, tasks: int, title: str) -> int:
    """A project of text tasks, the first ones annotated."""
    project = int(
        http.post("/api/projects/", json={"title": title, "label_config": CONFIG}).raise_for_status().json()["id"]
    )
    rows: list[dict[str, Any]] = []
    for number, (text, label) in enumerate(texts(tasks, seed=7)):
        row: dict[str, Any] = {"data": {"text": text}}
        if number < ANNOTATED:
            row["annotations"] = [{"result": [region(label)]}]
        rows.append(row)
    for first in range(0, tasks, 5_000):
        http.post(f"/api/projects/{project}/import", json=rows[first : first + 5_000]).raise_for_status()
    return project


def floor(http: httpx.Client, project: int) -> Floor:
    """The cheapest export and one bulk import, nothing else."""
    started = time.perf_counter()
    ids: list[int] = []
    while True:
        after = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": ids[-1] if ids else 0}
        query = {"filters": {"conjunction": "and", "items": [after]}, "ordering": ["tasks:id"]}
        params = {"project": project, "page": 1, "page_size": PAGE, "include": "id,data", "query": json.dumps(query)}
        body = http.get("/api/tasks", params={**params, "resolve_uri": "false"}).raise_for_status().json()
        ids += [task["id"] for task in body["tasks"]]
        if body["total"] <= len(body["tasks"]):
            break
    exported = time.perf_counter()
    rows = [{"task": task, "result": [region("other")], "score": 0.5, "model_version": "floor"} for task in ids]
    content = json.dumps(rows).encode()
    begun = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    answer = http.post(f"/api/projects/{project}/import/predictions", content=content, headers=headers)
    created = answer.raise_for_status().json()["created"]
    if created != len(ids):
        raise SystemExit(f"the floor is not one: {created} of {len(ids)} created")
    return Floor(exported - started, time.perf_counter() - begun)


def run_lsbatch(server: LocalServer, folder: Path, *arguments: str) -> tuple[float, int, dict[str, Any]]:
    """Seconds, peak memory of the driver in bytes, and the report of one command."""
    environ = {**os.environ, "LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": server.token}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "lsbatch", *arguments, "--json"],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    ended, peak = threading.Event(), [0]

    def watch() -> None:
        status = Path(f"/proc/{process.pid}/status")
        while not ended.wait(0.1) and status.exists():
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            peak[0] = max([peak[0], *(int(line.split()[1]) * 1024 for line in lines)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"lsbatch {' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - started, peak[0], json.loads(output)


def measure(server: LocalServer, folder: Path, tasks: int) -> list[tuple[str, str, str]]:
    """The table: floor, lsbatch, floor again, each on a project of its own."""
    headers = {"Authorization": f"Token {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=httpx.Timeout(1_800, connect=10)) as http:
        projects = [make_project(http, tasks, f"bench {number}") for number in range(3)]
        run_lsbatch(server, folder, "retrain", "--project", str(projects[1]))
        first = floor(http, projects[0])
        seconds, memory, report = run_lsbatch(server, folder, "predict", "--project", str(projects[1]))
        second = floor(http, projects[2])
    raw = (first.total + second.total) / 2

    def row(name: str, took: float) -> tuple[str, str, str]:
        return name, f"{took:.1f}", f"{took / raw:.2f}"

    rows = [row("floor: export, first run", first.export), row("floor: bulk import, first run", first.write)]
    rows += [row("floor: export, second run", second.export), row("floor: bulk import, second run", second.write)]
    rows += [row("floor", raw), row("lsbatch predict, end to end", seconds)]
    rows += [row(f"  its {stage}", took) for stage, took in report["seconds"].items()]
    rows.append(("driver's peak memory, MB", f"{memory / 1e6:.0f}", ""))
    confirmed = report["audit"]["confirmed"]
    rows.append(("predictions confirmed", f"{confirmed:,}", ""))
    return rows


def main() -> None:
    """Measure, print, and write ``benchmarks/RESULTS.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lsbatch-bench-") as folder:
        place = Path(folder)
        with start(place / "label-studio") as server:
            rows = measure(server, place, options.tasks)
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"# {options.tasks:,} text tasks on `label-studio start` (SQLite)",
        "",
        f"`python -m benchmarks --tasks {options.tasks}`, {platform.system()}, {cores} cores, Python "
        + platform.python_version(),
        "Ratios are to the mean of the two floors in the same run.",
        "",
        "| what | seconds | ratio |",
        "|---|---:|---:|",
        *(f"| {name} | {value} | {ratio} |" for name, value, ratio in rows),
    ]
    print("\n".join(lines))
    if options.write:
        Path(__file__).with_name("RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
