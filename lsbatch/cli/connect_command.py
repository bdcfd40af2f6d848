"""``lsbatch connect``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lsbatch.cli.options import Call, setting, shared_command
from lsbatch.cli.output import print_json, print_table

if TYPE_CHECKING:
    from lsbatch.operations.connecting import Connected, Connection, Disconnected
    from lsbatch.ports import Backend


@shared_command("connect", short_help="Register the live backend in Label Studio.")
@setting("project")
@click.option("--url", metavar="URL", help="Where Label Studio reaches lsbatch serve.")
@click.option("--title", metavar="NAME", help="Name of the backend in the project; lsbatch by default.")
@click.option("--interactive/--no-interactive", default=None, help="Also ask it while somebody annotates.")
@click.option("--show-predictions", is_flag=True, help="Also switch on that the project shows predictions at all.")
@click.option("--remove", is_flag=True, help="Take it and its webhook away; by --url, if --title gave it a name.")
def command(
    call: Call, *, url: str | None, title: str | None, interactive: bool | None, show_predictions: bool, remove: bool
) -> None:
    """Register the live backend at URL and its webhook in the project, or change them: BASIC_AUTH_USER, BASIC_AUTH_PASS
    and LSBATCH_SERVE_WEBHOOK_SECRET are told to Label Studio as lsbatch serve has them. It may be repeated. Without
    --url and --remove, show what is connected.

    \b
    Example:
      lsbatch connect --project 3 --url http://backend.example.org:9090
    """
    from lsbatch.verbs.connecting import ConnectRequest, connect_backend, connected_backends, disconnect_backend

    if (remove or url is None) and (title is not None or interactive is not None or show_predictions):
        raise click.UsageError("--title, --interactive and --show-predictions need --url, and do not go with --remove")
    if title is not None and not title.strip():
        raise click.UsageError("--title must not be empty")
    bench = call.bench()
    if remove:
        _print_removed(call, disconnect_backend(bench, url))
    elif url is None:
        found, active = connected_backends(bench)
        _print_found(call, found, active)
    else:
        done = connect_backend(bench, ConnectRequest(url, title, interactive, show_predictions))
        _print_connected(call, done, bench.project_id)


def _print_connected(call: Call, done: Connected, project: int) -> None:
    if call.json:
        print_json({**asdict(done), "others": [{"title": title, "url": url} for title, url in done.others]})
    else:
        print_table(
            [
                ("backend", f"{done.backend.title} at {done.backend.url}: {done.change}"),
                ("state", _state(done.backend)),
                ("model version", done.backend.model_version or "none"),
                ("webhook", done.webhook),
                ("annotators see", _seen(done.active, done.active_before)),
            ]
        )
    if not done.shown:
        _warn("the project shows annotators no predictions; --show-predictions switches that on")
    elif done.active != done.backend.title:
        _warn(
            f"annotators see {done.active or 'no predictions'}, and not what the backend predicts; that is chosen by: "
            f"lsbatch activate {shlex.quote(done.backend.title)} --project {project}"
        )
    for title, other in done.others:
        _warn(f"the project has the backend {title!r} at {other} too; Label Studio asks one of them for predictions")


def _print_removed(call: Call, done: Disconnected) -> None:
    if call.json:
        print_json({**asdict(done), "backends": [asdict(backend) for backend in done.backends]})
        return
    if not done.backends and not done.webhooks:
        click.echo("nothing to remove")
        return
    rows = [("removed", f"{backend.title} at {backend.url}") for backend in done.backends]
    print_table([*rows, ("webhooks", str(done.webhooks)), ("annotators see", _seen(done.active, done.active_before))])


def _print_found(call: Call, found: list[Connection], active: str) -> None:
    if call.json:
        rows = [
            {**asdict(entry.backend), "webhook": None if entry.webhook is None else asdict(entry.webhook)}
            for entry in found
        ]
        print_json({"backends": rows, "active": active})
        return
    if not found:
        click.echo("no live backend is connected")
        return
    header = ("title", "url", "state", "model version", "interactive", "webhook", "annotators")
    print_table([_row(entry, active) for entry in found], header=header)


def _row(entry: Connection, active: str) -> tuple[str, ...]:
    backend, webhook = entry.backend, entry.webhook
    secret = "none" if webhook is None else "with a secret" if webhook.secured else "without a secret"
    return (
        backend.title,
        backend.url,
        _state(backend),
        backend.model_version,
        "yes" if backend.interactive else "",
        secret if webhook is None or webhook.active else f"{secret}, switched off",
        "see it" if active == backend.title else "",
    )


def _state(backend: Backend) -> str:
    return f"{backend.state}: {' '.join(backend.problem.split())}" if backend.problem else backend.state


def _seen(active: str, before: str) -> str:
    now = active or "none"
    return now if active == before else f"{now}, before: {before or 'none'}"


def _warn(words: str) -> None:
    click.echo(f"warning: {words}", err=True)
