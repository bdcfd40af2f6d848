"""Options that several commands have, and how they become a configuration."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lsbatch.cli.boundary import boundary
from lsbatch.cli.output import TerminalProgress, configure_logging, print_json
from lsbatch.errors import ConfigError, LsbatchError

if TYPE_CHECKING:
    from lsbatch.config import Loaded
    from lsbatch.run_dir import RunDir
    from lsbatch.wiring import Bench

__all__ = ["RUN_SETTINGS", "SELECTION_SETTINGS", "SETTINGS", "Call", "setting", "shared_command"]

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: Flags that set a key of the configuration: parameter name -> (flag, key, click's settings).
SETTINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "project": ("--project", "project", {"type": int, "metavar": "ID", "help": "Id of the Label Studio project."}),
    "pipeline": (
        "--pipeline",
        "pipeline.name",
        {"metavar": "NAME", "help": "A built-in pipeline, or my_module:MyPipeline."},
    ),
    "model_version": (
        "--model-version",
        "pipeline.model_version",
        {"metavar": "VERSION", "help": "Version that predictions carry; the newest trained one by default."},
    ),
    "select": (
        "--select",
        "selection.select",
        {"metavar": "WHICH", "help": "missing (default), all, stale, or failed: see selection.select."},
    ),
    "view": ("--view", "selection.view", {"type": int, "metavar": "ID", "help": "Only tasks of this tab's filters."}),
    "filter": (
        "--filter",
        "selection.filter",
        {"metavar": "JSON|FILE", "help": "Only tasks that match these filters of the data manager."},
    ),
    "task_ids": (
        "--task-ids",
        "selection.task_ids",
        {"metavar": "FILE|-", "help": "Only these tasks: lines, a JSON list, or Parquet; - reads stdin."},
    ),
    "since": (
        "--since",
        "selection.since",
        {"metavar": "TIME", "help": "Only tasks created since a date or time (UTC), or an age such as 7d."},
    ),
    "until": ("--until", "selection.until", {"metavar": "TIME", "help": "Only tasks created before then."}),
    "untouched_only": (
        "--untouched-only",
        "selection.untouched_only",
        {"is_flag": True, "default": None, "help": "Leave out tasks with annotations or drafts."},
    ),
    "limit": (
        "--limit",
        "selection.limit",
        {"type": int, "metavar": "N", "help": "At most N tasks, lowest ids first."},
    ),
    "workers": (
        "--workers",
        "dask.workers",
        {"type": int, "metavar": "N", "help": "Worker processes; 0 predicts in this process."},
    ),
    "scheduler": (
        "--scheduler",
        "dask.scheduler",
        {"metavar": "ADDRESS", "help": "Use this Dask cluster, such as tcp://host:8786."},
    ),
    "chunk_size": (
        "--chunk-size",
        "inference.chunk_size",
        {"type": int, "metavar": "N", "help": "Tasks of a chunk; found by measuring."},
    ),
    "activate": (
        "--activate",
        "import.activate",
        {"is_flag": True, "default": None, "help": "Show the version to annotators after a clean audit."},
    ),
    "max_failures": (
        "--max-failures",
        "run.max_failures",
        {"metavar": "N|N%", "help": "Most tasks that may fail before nothing more is sent; 1% by default."},
    ),
    "fail_fast": (
        "--fail-fast",
        "run.max_failures",
        {"flag_value": "0", "default": None, "help": "Stop at the first task that fails; as --max-failures 0."},
    ),
    "max_runtime": (
        "--max-runtime",
        "run.max_runtime",
        {"metavar": "TIME", "help": "Stop in order after so long, such as 6h; the same command continues."},
    ),
    "wait": (
        "--wait",
        "run.wait",
        {"metavar": "TIME", "help": "How long to wait for another run of this version; 0 by default."},
    ),
    "max_rps": (
        "--max-rps",
        "label_studio.max_requests_per_second",
        {"type": float, "metavar": "N", "help": "At most N requests a second; no limit by default."},
    ),
    "holdout": (
        "--holdout",
        "retrain.holdout",
        {"metavar": "SHARE", "help": "Share of tasks to measure on, such as 0.2."},
    ),
    "consensus": (
        "--consensus",
        "retrain.consensus",
        {"metavar": "WHICH", "help": "Which annotation counts: latest, first, majority or ground-truth."},
    ),
    "training_view": (
        "--view",
        "retrain.view",
        {"type": int, "metavar": "ID", "help": "Learn only from tasks of this tab's filters."},
    ),
    "training_filter": (
        "--filter",
        "retrain.filter",
        {"metavar": "JSON|FILE", "help": "Learn only from tasks that match these filters of the data manager."},
    ),
    "min_annotations": (
        "--min-annotations",
        "retrain.min_annotations",
        {"type": int, "metavar": "N", "help": "Refuse to learn from fewer annotated tasks."},
    ),
    "max_regression": (
        "--max-regression",
        "retrain.max_regression",
        {"metavar": "SHARE", "help": "How much worse than the one in use a version may be; 0.01 by default."},
    ),
    "search": (
        "--search",
        "retrain.search",
        {"type": int, "metavar": "N", "help": "Try N sets of parameters on the Dask cluster first."},
    ),
    "host": ("--host", "serve.host", {"metavar": "ADDRESS", "help": "Address to listen on; 127.0.0.1 by default."}),
    "port": ("--port", "serve.port", {"type": int, "metavar": "N", "help": "Port to listen on; 9090 by default."}),
    "serve_workers": (
        "--workers",
        "serve.workers",
        {"type": int, "metavar": "N", "help": "Processes that predict, each with a model of its own; 1 by default."},
    ),
    "retrain_every": (
        "--retrain-every",
        "serve.retrain_every",
        {"type": int, "metavar": "N", "help": "Train after so many new annotations; never by default."},
    ),
    "drain_seconds": (
        "--drain-seconds",
        "serve.drain_seconds",
        {"type": float, "metavar": "S", "help": "How long what is under way may take to end after SIGTERM."},
    ),
    "insecure": (
        "--insecure",
        "serve.insecure",
        {"is_flag": True, "default": None, "help": "Answer on a public interface without basic auth too."},
    ),
    "score": (
        "--score",
        "inference.score",
        {"metavar": "WHAT", "help": "confidence (default), least-confidence, margin or entropy."},
    ),
}


#: Which tasks.
SELECTION_SETTINGS = ("view", "filter", "task_ids", "since", "until", "untouched_only", "limit")
#: How a run goes.
RUN_SETTINGS = ("max_rps", "workers", "scheduler", "chunk_size", "max_failures", "fail_fast", "max_runtime", "wait")


def setting(*names: str) -> Decorator:
    """Add flags of ``SETTINGS`` to a command."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            flag, _, options = SETTINGS[name]
            function = click.option(flag, name, **options)(function)
        return function

    return add


@dataclass
class Call:
    """One call of a command: how to talk, and the flags that were given."""

    json: bool
    quiet: bool
    config_file: Path | None
    flags: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    @property
    def progress(self) -> TerminalProgress:
        """Shows how far it is."""
        return TerminalProgress(quiet=self.quiet)

    def load(self, settings: Mapping[str, Any] | None = None) -> Loaded:
        """The effective configuration; ``settings``, by path, are as strong as flags."""
        from lsbatch.config import load

        flags = {SETTINGS[name][1]: value for name, value in self.flags.items() if value is not None}
        flags |= settings or {}
        loaded = load(
            self.config_file,
            environ=os.environ,
            flags=flags,
            cwd=_working_directory(),
            flag_names={key: flag for flag, key, _ in SETTINGS.values()},
        )
        # They may stand in the file, where the boundary cannot know them from.
        serve = loaded.config.serve
        secrets = (loaded.config.label_studio.api_key, serve.basic_auth_pass, serve.webhook_secret)
        self.secrets += [secret.get_secret_value() for secret in secrets if secret is not None]
        return loaded

    def bench(self, *, retry_seconds: float | None = None) -> Bench:
        """Everything that the command needs, from the effective configuration."""
        from lsbatch.wiring import Bench

        return Bench(self.load(), retry_seconds=retry_seconds)

    def bench_of_run(self, name: str) -> tuple[Bench, RunDir]:
        """The run of this id, and everything for a command that goes on with it, as it was started."""
        from lsbatch.verbs.listing import located_run
        from lsbatch.wiring import Bench

        _, run = located_run(self.load(), name)
        return Bench(self.load(run.settings())), run


def shared_command(
    name: str, *, config: bool = True, **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command within the error boundary, with the options that all commands share.

    The function gets a ``Call`` first, then its own options. Flags of ``SETTINGS`` go into the call.
    """

    def wrap(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(*, verbose: int, quiet: bool, as_json: bool, config_file: Path | None = None, **options: Any) -> Any:
            secrets = _secrets()
            with boundary(secrets):
                configure_logging(-1 if quiet else verbose)
                flags = {key: options.pop(key) for key in list(options) if key in SETTINGS}
                with _reported(as_json):
                    return function(Call(as_json, quiet, config_file, flags, secrets), **options)

        shared = [
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
            click.option("-v", "--verbose", count=True, help="Log more; twice for every request."),
            click.option("-q", "--quiet", is_flag=True, help="Only errors on stderr."),
        ]
        if config:
            path = click.Path(path_type=Path, dir_okay=False)
            text = "Configuration; pipeline.yaml by default, if there is one."
            shared.insert(0, click.option("-c", "--config", "config_file", metavar="FILE", type=path, help=text))
        for option in reversed(shared):
            run = option(run)
        decorate: Callable[..., click.Command] = click.command(name, **attributes)
        return decorate(run)

    return wrap


@contextmanager
def _reported(as_json: bool) -> Iterator[None]:
    """A run that ended by an error has a report all the same, and a program may want to read it."""
    try:
        yield
    except LsbatchError as error:
        if as_json and error.report is not None:
            print_json(error.report)
        raise


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working directory does not exist any more", hint="Go to one that does.") from None


def _secrets() -> list[str]:
    names = (
        *("LABEL_STUDIO_API_KEY", "LSBATCH_LABEL_STUDIO_API_KEY"),
        *("BASIC_AUTH_PASS", "LSBATCH_SERVE_BASIC_AUTH_PASS", "LSBATCH_SERVE_WEBHOOK_SECRET"),
    )
    return [value for name in names if (value := os.environ.get(name, "").strip())]
