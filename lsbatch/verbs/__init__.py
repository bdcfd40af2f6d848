"""The verbs on a configured project: what the command line and the demo both call."""

from lsbatch.verbs.accepting import AcceptRequest, accept_predictions
from lsbatch.verbs.auditing import audit_project
from lsbatch.verbs.checking import CHECK_RETRY_SECONDS, check_project
from lsbatch.verbs.deleting import DeleteRequest, delete_predictions
from lsbatch.verbs.predicting import continue_run, predict_project, retry_run
from lsbatch.verbs.replacing import replace_versions
from lsbatch.verbs.storing import import_stored
from lsbatch.verbs.training import retrain_project
from lsbatch.verbs.versions import activate_version, project_versions

__all__ = [
    "CHECK_RETRY_SECONDS",
    "AcceptRequest",
    "DeleteRequest",
    "accept_predictions",
    "activate_version",
    "audit_project",
    "check_project",
    "continue_run",
    "delete_predictions",
    "import_stored",
    "predict_project",
    "project_versions",
    "replace_versions",
    "retrain_project",
    "retry_run",
]
