"""What can be set of the live backend."""

from __future__ import annotations

from lsbatch.config.setting import Section, setting
from lsbatch.config.values import Float, Int, Secret, Text

__all__ = ["Serve"]

MB = 1_000_000


class Serve(Section):
    """``serve``."""

    host: Text = setting("127.0.0.1", "Address to listen on; 0.0.0.0 = every interface, which needs basic auth.")
    port: Int = setting(9090, "Port to listen on; 0 = any free one.", ge=0, le=65535)
    workers: Int = setting(1, "Processes that predict, each with a model of its own.", ge=1, le=64)
    max_batch_size: Int = setting(64, "Most tasks that the pipeline is given at once.", ge=1)
    max_wait_ms: Float = setting(
        2.0, "How long a batch that is not full waits for more tasks while others are under way, in milliseconds.", ge=0
    )
    max_queue_tasks: Int = setting(
        10_000, "Most tasks that wait; what comes beyond is refused with 429 and a Retry-After.", ge=1
    )
    predict_seconds: Float = setting(
        90.0, "Longest time for an answer, in seconds; less than the 100 that Label Studio waits.", gt=0
    )
    task_seconds: Float = setting(
        30.0, "Longest time for one call of the pipeline, in seconds; one that hangs is killed then.", gt=0
    )
    max_body_mb: Float = setting(25.0, "Largest request, in MB (millions of bytes).", gt=0)
    drain_seconds: Float = setting(30.0, "How long what is under way may take to end after SIGTERM, in seconds.", ge=0)
    reload_seconds: Float = setting(
        15.0, "How often the model store is asked whether another version is in use, in seconds.", gt=0
    )
    retrain_every: Int | None = setting(
        None, "Train after so many new annotations. Empty = only when asked to.", example="20", ge=1
    )
    retrain_min_seconds: Float = setting(
        60.0, "Shortest time from the start of one training after new annotations to the next, in seconds.", ge=0
    )
    basic_auth_user: Text | None = setting(
        None, "User name that every request must carry.", example="label-studio", env=("BASIC_AUTH_USER",)
    )
    basic_auth_pass: Secret | None = setting(
        None, "Password that goes with it. Better left empty here.", env=("BASIC_AUTH_PASS",), secret=True
    )
    webhook_secret: Secret | None = setting(
        None,
        "What webhooks must carry in the header X-Lsbatch-Secret, since Label Studio gives them no basic auth;"
        " lsbatch connect sets it. Better left empty here.",
        secret=True,
    )
    train_seconds: Float = setting(
        6 * 3600.0, "Longest time of a training, in seconds; one that takes longer is ended.", gt=0
    )
    insecure: bool = setting(False, "Answer on a public interface without basic auth too.")

    @property
    def max_body_bytes(self) -> int:
        """Largest request, in bytes."""
        return max(1, int(self.max_body_mb * MB))
