"""A project that no single request can carry: more work than the server's limit allows."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarks.process import run_lsbatch, run_lsbatch_well
from benchmarks.projects import connect, make_project
from benchmarks.results import Section, Target, cell
from benchmarks.servers import SERVERS, about, add_server_option, serve

__all__ = ["DESCRIPTION", "TITLES", "add_options", "measure"]

DESCRIPTION = "a project too large for one request behind a time limit: exit code and audit"
TITLES = [f"Large, {words}" for words in SERVERS.values()]


def add_options(parser: ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=100_000, help="default: %(default)s")
    add_server_option(parser, "postgres")


def measure(options: Namespace, folder: Path) -> Section:
    """The table; a run that fails is in it too."""
    tasks = options.tasks
    with serve(options.server, folder) as server, connect(server) as http:
        project = make_project(http, tasks, "large")
        run_lsbatch_well(server.url, server.token, folder, "retrain", "--project", str(project))
        ours = run_lsbatch(server.url, server.token, folder, "predict", "--project", str(project))
    report = ours.report
    audit = report.get("audit") or {}
    section = Section(f"Large, {SERVERS[options.server]}", ("what", "value"), notes=about(options.server))
    section.rows = [
        ("tasks", cell(tasks)),
        ("exit code", str(ours.code)),
        ("seconds, whole command", cell(ours.seconds)),
        ("ms a task", cell(ours.seconds / tasks * 1e3)),
        *((f"seconds, stage {stage}", cell(seconds)) for stage, seconds in report.get("seconds", {}).items()),
        ("write requests", str(report.get("requests", ""))),
        ("ambiguous answers", str(report.get("ambiguous", ""))),
        ("driver's peak memory, MB", cell(ours.peak_mb)),
        ("confirmed by the audit", cell(audit.get("confirmed", 0))),
        ("missing, surplus", f"{audit.get('missing_count', '')}, {audit.get('surplus', '')}"),
    ]
    section.targets = [
        Target("exit code", ours.code, least=0, most=0),
        Target("tasks that the audit confirmed", audit.get("confirmed", 0), least=tasks, most=tasks),
        Target("surplus predictions", audit.get("surplus", tasks), least=0, most=0),
    ]
    return section
