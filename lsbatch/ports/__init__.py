"""The interfaces between the core and the adapters: connectors and pipelines implement them, the core calls them."""

from lsbatch.ports.backends import (
    SECRET_HEADER,
    BackendRegistry,
    BackendSettings,
    Change,
    LiveAnswer,
    LiveBackend,
    Webhook,
)
from lsbatch.ports.models import ModelStore
from lsbatch.ports.pipelines import (
    Evaluation,
    LabelMetrics,
    MediaReader,
    Pipeline,
    PipelineContext,
    TaskFailure,
    TaskResult,
    Trainable,
    TrainingCluster,
    TrainingTask,
)
from lsbatch.ports.predictions import Backend, PredictionSink, PredictionStore, VersionCount
from lsbatch.ports.tasks import AnnotationSource, LabelQueue, ProjectInfo, Selection, TaskPage, TaskSource

__all__ = [
    "SECRET_HEADER",
    "AnnotationSource",
    "Backend",
    "BackendRegistry",
    "BackendSettings",
    "Change",
    "Evaluation",
    "LabelMetrics",
    "LabelQueue",
    "LiveAnswer",
    "LiveBackend",
    "MediaReader",
    "ModelStore",
    "Pipeline",
    "PipelineContext",
    "PredictionSink",
    "PredictionStore",
    "ProjectInfo",
    "Selection",
    "TaskFailure",
    "TaskPage",
    "TaskResult",
    "TaskSource",
    "Trainable",
    "TrainingCluster",
    "TrainingTask",
    "VersionCount",
    "Webhook",
]
