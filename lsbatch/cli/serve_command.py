"""``lsbatch serve``."""

from __future__ import annotations

import click

from lsbatch.cli.options import Call, setting, shared_command


@shared_command("serve", short_help="Serve the model as a live Label Studio backend.")
@setting("project", "pipeline", "model_version", "score", "host", "port", "serve_workers", "retrain_every")
@setting("drain_seconds", "insecure")
@click.option("--answer-from-runs", is_flag=True, help="Answer with what finished runs predicted, where they did.")
def command(call: Call, *, answer_from_runs: bool) -> None:
    """Serve the model in use as a live backend of one project: the same version and the same predictions as predict.

    Another version that is promoted meanwhile takes its place without a request failing. Connect it to Label Studio
    with lsbatch connect. SIGTERM ends it in order: what is under way is answered first.

    \b
    Example:
      lsbatch serve --project 3 --port 9090
    """
    from lsbatch.serving.server import serve

    serve(call.load(), answer_from_runs=answer_from_runs, quiet=call.quiet)
