"""Text or HyperText with Labels: the mentions of what an annotator has just marked, or of what people marked before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from lsbatch.entities import Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import Evaluation, PipelineContext, TaskFailure, TaskResult, Trainable, TrainingTask
from lsbatch_pipelines.documents import Document
from lsbatch_pipelines.gazetteer import Gazetteer, evaluate
from lsbatch_pipelines.marks import regions_of
from lsbatch_pipelines.mentions import Mention, Needles, words_of
from lsbatch_pipelines.params import limited, named, read_params
from lsbatch_pipelines.spans import (
    Span,
    find_control,
    labels_of,
    places,
    read_document,
    read_example,
    servable,
    why_not,
    write_region,
)

__all__ = ["SpanOptions", "TextSpans"]

FEWEST_TRAINING_TASKS = 10


@dataclass(frozen=True)
class SpanOptions:
    """``pipeline.params`` of text-spans."""

    #: Name of the Labels to fill; without it the first that can be, and for predictions that of the training.
    control: str = named()
    #: Share of the mentions of a text that must have been marked with its label.
    least_share: float = limited(0.5, 0.0, 1.0)
    #: Times that a text must have been marked.
    least_marked: int = limited(1, 1, 1_000_000)


class TextSpans(Trainable):
    """Marks what has been marked elsewhere.

    With a mark (``<Labels smart="true">``): the other mentions of the marked text in this task, with the same labels.
    Whole words; line breaks and blanks are alike; with capitals as marked, or where there is no such mention, without.
    Only what was marked last counts, and only the first time: where the context holds the same text twice, it was
    answered before, and a mention that somebody has deleted since does not come back. It needs no model.

    In a batch: the mentions of what people marked in other tasks, see ``Gazetteer``. The score of a region is the share
    of the mentions of its text that carried its label where the pipeline was trained, and that of a prediction is
    their mean; a text that mentions nothing known has none.

    Args:
        controls: the Labels that it may answer marks of.
        control: the Labels that a batch fills.
        gazetteer: what is known, None before the first training.
        model_version: of its predictions.
    """

    name: ClassVar[str] = "text-spans"
    untrained_version: ClassVar[str] = "text-spans-untrained"

    def __init__(
        self, controls: Sequence[Control], control: Control, gazetteer: Gazetteer | None, model_version: str
    ) -> None:
        self.model_version = model_version
        self._controls = {entry.name: entry for entry in controls}
        self._control = control
        self._gazetteer = gazetteer

    @classmethod
    def why_not(cls, label_config: LabelConfig) -> str | None:
        """See ``Pipeline.why_not``."""
        return why_not(label_config)

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """See ``Pipeline.build``. Without a model it answers marks alone."""
        options = read_params(SpanOptions, context.params)
        control = find_control(context.label_config, options.control)
        gazetteer = None
        if context.model_dir is not None:
            gazetteer = _loaded(context.model_dir, context.label_config, options.control)
            control = find_control(context.label_config, gazetteer.control)
        controls = [control] if options.control else servable(context.label_config)
        return cls(controls, control, gazetteer, context.model_version)

    @classmethod
    def search_space(cls) -> Mapping[str, Sequence[Any]]:
        """See ``Trainable``: values of parameters that are worth trying."""
        return {"least_share": (0.2, 0.35, 0.5, 0.65, 0.8), "least_marked": (1, 2, 3)}

    @classmethod
    def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Evaluation:
        """See ``Trainable.fit``. The metrics are of spans, and a task is right if all of its spans are."""
        options = read_params(SpanOptions, context.params)
        control = find_control(context.label_config, options.control)
        unread: list[tuple[TaskId, str]] = []
        learned: list[tuple[Document, list[Span]]] = []
        held: list[tuple[Document, list[Span]]] = []
        for entry in tasks:
            found = read_example(entry, control)
            if isinstance(found, TaskFailure):
                unread.append((entry.task.id, found.cause))
            else:
                (held if entry.held_out else learned).append(found)
        _check(control, learned, held, unread)
        gazetteer = Gazetteer.fit(control, learned, least_share=options.least_share, least_marked=options.least_marked)
        gazetteer.save(model_dir)
        guesses = [[span for span, _ in gazetteer.find(document)] for document, _ in held]
        return evaluate(control, len(learned), [spans for _, spans in held], guesses, sorted(unread))

    def predict(
        self, tasks: Sequence[Task], context: Mapping[str, Any] | None = None
    ) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``. Of a context without regions, as after an undo, there is nothing to say."""
        if context is None:
            return [self._known(task) for task in tasks]
        return [self._answer(task, context) for task in tasks]

    def _known(self, task: Task) -> TaskResult | TaskFailure:
        if self._gazetteer is None:
            return TaskFailure("no model is trained yet: without one only what an annotator marks is answered")
        document = read_document(task, self._control)
        if isinstance(document, TaskFailure):
            return document
        found = list(self._gazetteer.find(document))
        regions = [
            {**write_region(self._control, document, (span.start, span.end), [span.label]), "score": round(share, 6)}
            for span, share in found
        ]
        if not found:
            return {"result": []}
        return {"result": regions, "score": round(sum(share for _, share in found) / len(found), 6)}

    def _answer(self, task: Task, context: Mapping[str, Any]) -> TaskResult | TaskFailure:
        """The other mentions of what was marked last."""
        regions = regions_of(context)
        if not regions:
            return {"result": []}
        last = regions[-1]
        control = self._controls.get(str(last.get("from_name")))
        if control is None:
            names = ", ".join(repr(name) for name in self._controls)
            return TaskFailure(f"the mark is of {last.get('from_name')!r}; what is answered are marks of {names}")
        labels = labels_of(last)
        if not labels or (unknown := sorted(set(labels) - set(control.labels))):
            what = f"{unknown[0]!r}, which '{control.name}' does not have" if labels else "none; choose one first"
            return TaskFailure(f"the label of the mark is {what}")
        document = read_document(task, control)
        if isinstance(document, TaskFailure):
            return document
        try:
            start, end = document.place(last["value"])
        except ValueError as error:
            return TaskFailure(str(error))
        others = places(document, [region for region in regions[:-1] if region.get("to_name") == control.to_name])
        found = _others(document, (start, end), others)
        return {"result": [write_region(control, document, place, labels) for place in found]}


def _loaded(folder: Path, label_config: LabelConfig, name: str) -> Gazetteer:
    """The model in a folder.

    Raises:
        ConfigError: it is damaged, or does not fit the label config or the name.
    """
    again = "Run lsbatch retrain --project N again."
    try:
        gazetteer = Gazetteer.load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the model in {folder} is missing or damaged: {error}", hint=again) from error
    if name and name != gazetteer.control:
        raise ConfigError(f"the model in {folder} was trained for '{gazetteer.control}', not for '{name}'", hint=again)
    fitting = [control for control in servable(label_config) if control.name == gazetteer.control]
    known = set(fitting[0].labels) if fitting else set()
    if not fitting or not all(entry.label in known for entry in gazetteer.entries):
        why = f"has no Labels '{gazetteer.control}' with all the labels that it learned"
        raise ConfigError(f"the model in {folder} does not fit the label config, which {why}", hint=again)
    return gazetteer


def _others(document: Document, mark: tuple[int, int], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places of the other mentions of what stands at a mark, none of them over it or over another marked place."""
    words = words_of(document.text[slice(*mark)])
    if not words or any(words_of(document.text[slice(*place)]) == words for place in others):
        return []
    taken = [mark, *others]
    for case in (True, False):
        found = [
            (mention.start, mention.end)
            for mention in Needles([words], case=case).find(document.text, document.segments)
            if _free(mention, taken)
        ]
        if found:
            return found
    return []


def _free(mention: Mention, taken: Sequence[tuple[int, int]]) -> bool:
    return all(mention.end <= start or end <= mention.start for start, end in taken)


def _check(
    control: Control, learned: Sequence[tuple[Document, Sequence[Span]]], held: Sequence[Any], unread: Sequence[Any]
) -> None:
    more = f"; {len(unread)} cannot be used, such as task {unread[0][0]}: {unread[0][1]}" if unread else ""
    if len(learned) < FEWEST_TRAINING_TASKS:
        raise ConfigError(
            f"too few annotations for '{control.name}': {len(learned)} usable, at least {FEWEST_TRAINING_TASKS} are"
            f" needed{more}",
            hint="Annotate more tasks, or name another Labels in pipeline.params.control. Tasks held out for the"
            " evaluation (retrain.holdout) are not counted here.",
        )
    if not any(spans for _, spans in learned):
        raise ConfigError(
            f"none of {len(learned)} annotations marks anything with '{control.name}'{more}",
            hint="Mark spans in some tasks.",
        )
    if not held:
        raise ConfigError(
            f"no annotated task is held out, so the model cannot be measured ({len(learned)} to learn from)",
            hint="Annotate more tasks, or raise retrain.holdout.",
        )
