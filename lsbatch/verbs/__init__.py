"""The verbs on a configured project: what the command line and the demo both call."""

from lsbatch.verbs.auditing import audit_project
from lsbatch.verbs.checking import CHECK_RETRY_SECONDS, check_project
from lsbatch.verbs.predicting import continue_run, predict_project, retry_run
from lsbatch.verbs.storing import import_stored
from lsbatch.verbs.training import retrain_project

__all__ = [
    "CHECK_RETRY_SECONDS",
    "audit_project",
    "check_project",
    "continue_run",
    "import_stored",
    "predict_project",
    "retrain_project",
    "retry_run",
]
