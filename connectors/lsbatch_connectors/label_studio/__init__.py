"""Label Studio over HTTP: tasks and annotations are read from it, predictions are written to it."""

from lsbatch_connectors.label_studio.backends import LabelStudioBackends
from lsbatch_connectors.label_studio.client import ConnectionOptions, LabelStudioClient
from lsbatch_connectors.label_studio.project import LabelStudioProject

__all__ = ["ConnectionOptions", "LabelStudioBackends", "LabelStudioClient", "LabelStudioProject"]
