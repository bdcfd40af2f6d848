"""The whole command against the floor, and against what people use today."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarks.floor import Floor, floor
from benchmarks.process import Finished, run_lsbatch_well
from benchmarks.projects import connect, make_project
from benchmarks.results import Section, Target, cell
from benchmarks.servers import SERVERS, about, add_server_option, serve
from benchmarks.today import Measured, one_shot_script, plain_script, retrieve

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "lsbatch predict against the raw requests, 'Retrieve predictions' and scripts around the SDK"
TITLES = [f"End to end, {words}" for words in SERVERS.values()]
#: lsbatch / floor, and how many times faster than each of today's ways, at least.
MOST_OVER_FLOOR = 1.25
FASTER = {"Retrieve predictions": 20, "plain SDK script": 35, "one-shot SDK script": 2.5}


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=20_000, help="default: %(default)s")
    add_server_option(parser, "sqlite")
    parser.add_argument("--plain-tasks", type=int, default=300, help="for the plain script; default: %(default)s")
    parser.add_argument(
        "--retrieve-tasks",
        type=int,
        default=1_000,
        help="for 'Retrieve predictions', doubled until the server cuts it off or --tasks; default: %(default)s",
    )


def measure(options: Namespace, folder: Path) -> Section:
    """The table; each line is of a project of its own."""
    tasks = options.tasks
    with serve(options.server, folder) as server, connect(server) as http:
        projects = [make_project(http, tasks, f"end to end {number}") for number in range(3)]
        run_lsbatch_well(server.url, server.token, folder, "retrain", "--project", str(projects[1]))
        first = floor(http, projects[0])
        ours = run_lsbatch_well(server.url, server.token, folder, "predict", "--project", str(projects[1]))
        second = floor(http, projects[2])
        # Without a limit it only takes longer: one size is enough.
        most = tasks if options.server == "postgres" else options.retrieve_tasks
        retrieved = retrieve(http, options.retrieve_tasks, most)
        scripts = {
            "plain SDK script": plain_script(server, http, options.plain_tasks),
            "one-shot SDK script": one_shot_script(server, http, tasks),
        }
    confirmed = ours.report["audit"]["confirmed"]
    if confirmed != tasks:
        raise SystemExit(f"lsbatch is no measure: {confirmed} of {tasks} predictions confirmed")
    return _section(options, ours, (first, second), retrieved, scripts)


def _section(
    options: Namespace,
    ours: Finished,
    floors: tuple[Floor, Floor],
    retrieved: list[Measured],
    scripts: dict[str, Measured],
) -> Section:
    tasks, raw = options.tasks, sum(each.total for each in floors) / len(floors)
    section = Section(
        f"End to end, {SERVERS[options.server]}",
        ("what", "tasks", "seconds", "ms a task", "times lsbatch"),
        notes=[
            *about(options.server),
            "The floor is the cheapest export and one bulk import, before and after lsbatch in the same run.",
        ],
    )

    def row(name: str, count: int, seconds: float) -> None:
        per_task = seconds / count
        times = cell(per_task / (ours.seconds / tasks))
        section.rows.append((name, f"{count:,}", cell(seconds), cell(per_task * 1e3), times))

    for number, each in enumerate(floors, start=1):
        row(f"floor {number}: export", tasks, each.export)
        row(f"floor {number}: bulk import", tasks, each.write)
    row("floor, mean", tasks, raw)
    row("lsbatch predict, whole command", tasks, ours.seconds)
    for stage, seconds in ours.report["seconds"].items():
        row(f"its stage: {stage}", tasks, seconds)
    section.rows.append(("driver's peak memory, MB", "", cell(ours.peak_mb), "", ""))
    for attempt in retrieved:
        if attempt.failed:
            section.rows.append((f"Retrieve predictions: {attempt.failed}", f"{attempt.tasks:,}", "", "", ""))
        else:
            row("Retrieve predictions", attempt.tasks, attempt.seconds)
    for name, script in scripts.items():
        row(name, script.tasks, script.seconds)
    _promise(section, ours.seconds / tasks * 1e3, raw / tasks * 1e3, retrieved, scripts)
    return section


def _promise(
    section: Section, ours: float, raw: float, retrieved: list[Measured], scripts: dict[str, Measured]
) -> None:
    """The targets; ``ours`` and ``raw`` in milliseconds a task."""
    section.targets.append(Target("lsbatch / floor", ours / raw, most=MOST_OVER_FLOOR))
    survived = [each for each in retrieved if not each.failed]
    today = {**({"Retrieve predictions": survived[-1]} if survived else {}), **scripts}
    for name, each in today.items():
        section.targets.append(Target(f"times faster than {name}", each.per_task / ours, least=FASTER[name]))
