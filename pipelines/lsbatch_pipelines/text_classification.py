"""Text or HyperText with Choices: words and pairs of words, weighted by how rare they are, into boosted trees."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from lsbatch.entities import Task
from lsbatch.errors import ConfigError
from lsbatch.label_config import Control, LabelConfig
from lsbatch.ports import Evaluation, PipelineContext, TaskFailure, TaskResult, Trainable, TrainingTask
from lsbatch_pipelines.choices import collect, evaluate, find_control, why_not, write_result
from lsbatch_pipelines.params import limited, named, read_params
from lsbatch_pipelines.texts import task_text
from lsbatch_pipelines.xgboost_head import SEARCH_SPACE, Head, HeadOptions, damaged, no_model

if TYPE_CHECKING:
    # Loaded where texts are weighed: the driver only asks whether the pipeline fits.
    from scipy.sparse import csr_matrix

__all__ = ["TextClassification", "TextOptions"]

OBJECT_TAGS = ("Text", "HyperText")
VOCABULARY, IDF = "vocabulary.json", "idf.npy"
#: Characters of a text that are read; a longer one is cut here.
MOST_CHARACTERS = 100_000
#: Numbers of an embedding.
EMBEDDED = 64


@dataclass(frozen=True)
class TextOptions:
    """``pipeline.params`` of text-classification."""

    #: Name of the Choices to fill; without it the first that can be, and for predictions that of the training.
    control: str = named()
    #: Most rounds of boosting; each grows one tree a label. Fewer where more stop helping.
    trees: int = limited(100, 1, 10_000)
    #: Most splits from a tree's root to a leaf.
    max_depth: int = limited(6, 1, 20)
    #: How much each tree corrects of what the trees before it left.
    learning_rate: float = limited(0.3, 0.001, 1.0)
    #: How far rare labels weigh more: 0 not at all, 1 until all labels weigh the same.
    balance: float = limited(0.5, 0.0, 1.0)
    #: Of all that is left to chance.
    seed: int = limited(0, 0, 2**31 - 1)
    #: Most words and pairs of words that are looked at, the most frequent first.
    max_features: int = limited(20_000, 10, 1_000_000)


class TextClassification(Trainable):
    """Chooses labels for texts.

    Args:
        words: counts and weighs words.
        head: from weights to labels.
        model_version: of its predictions.
        score: what their scores are, one of ``lsbatch_pipelines.calibration.SCORES``.
    """

    name: ClassVar[str] = "text-classification"

    def __init__(self, words: _Words, head: Head, model_version: str, score: str = "confidence") -> None:
        self.model_version = model_version
        self._score = score
        self._control = head.control
        self._words = words
        self._head = head

    @classmethod
    def why_not(cls, label_config: LabelConfig) -> str | None:
        """See ``Pipeline.why_not``."""
        return why_not(label_config, *OBJECT_TAGS)

    @classmethod
    def build(cls, context: PipelineContext) -> Self:
        """See ``Pipeline.build``."""
        options = read_params(TextOptions, context.params)
        if context.model_dir is None:
            raise no_model()
        head = Head.load(context.model_dir, context.label_config, *OBJECT_TAGS, name=options.control)
        return cls(_Words.load(context.model_dir), head, context.model_version, context.score)

    @classmethod
    def search_space(cls) -> Mapping[str, Sequence[Any]]:
        """See ``Trainable``: values of parameters that are worth trying."""
        return SEARCH_SPACE

    @classmethod
    def fit(cls, context: PipelineContext, tasks: Iterable[TrainingTask], model_dir: Path) -> Evaluation:
        """See ``Trainable.fit``."""
        options = read_params(TextOptions, context.params)
        control = find_control(context.label_config, *OBJECT_TAGS, name=options.control)
        examples = collect(control, tasks, lambda batch: [read_text(task, control) for task in batch])
        words = _Words.fit(examples.rows, options.max_features)
        grown = HeadOptions(options.trees, options.max_depth, options.learning_rate, 0.5, options.balance, options.seed)
        head = Head.fit(words.weigh(examples.rows), examples.answers, control, grown, extra={}, cluster=context.cluster)
        words.save(model_dir)
        head.save(model_dir)
        return evaluate(control, examples, head.predict(words.weigh(examples.held_rows)))

    def predict(self, tasks: Sequence[Task]) -> Sequence[TaskResult | TaskFailure]:
        """See ``Pipeline.predict``. A task without a text is a failure."""
        texts = [read_text(task, self._control) for task in tasks]
        weights = self._words.weigh([text for text in texts if isinstance(text, str)])
        guesses = iter(self._head.predict(weights, self._score))
        return [write_result(self._control, next(guesses)) if isinstance(text, str) else text for text in texts]

    def embed(self, tasks: Sequence[Task]) -> Sequence[NDArray[np.float32] | TaskFailure]:
        """See ``Pipeline``: 64 numbers, in which texts with the same words lie near each other."""
        texts = [read_text(task, self._control) for task in tasks]
        rows = iter(self._words.projected([text for text in texts if isinstance(text, str)]))
        return [next(rows) if isinstance(text, str) else text for text in texts]


def read_text(task: Task, control: Control) -> str | TaskFailure:
    """The text of a task without tags, cut at 100,000 characters, or why there is none."""
    text = task_text(task, control)
    if isinstance(text, TaskFailure):
        return text
    text = text[:MOST_CHARACTERS]
    return _without_tags(text) if control.object_tag == "HyperText" else text


def _without_tags(text: str) -> str:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign, assignment]
    parser.feed(text)
    parser.close()
    return " ".join(found)


class _Words:
    """The weight of each known word and pair of words in a text (TF-IDF).

    Args:
        vocabulary: word or pair of words to column.
        idf: shape (columns,), float64: how rare each is.
    """

    def __init__(self, vocabulary: dict[str, int], idf: NDArray[np.float64]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vocabulary = vocabulary
        self._directions: NDArray[np.float32] | None = None
        self._vectorizer = TfidfVectorizer(vocabulary=vocabulary, **_settings())
        self._vectorizer.idf_ = idf

    @classmethod
    def search_space(cls) -> Mapping[str, Sequence[Any]]:
        """See ``Trainable``: values of parameters that are worth trying."""
        return SEARCH_SPACE

    @classmethod
    def fit(cls, texts: Sequence[str], most: int) -> _Words:
        """Learn the words of the texts.

        Raises:
            ConfigError: the texts hold no word.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(max_features=most, **_settings())
        try:
            vectorizer.fit(texts)
        except ValueError as error:
            raise ConfigError(
                f"the annotated texts hold no words: {error}", hint="Is the label config's value the key of the text?"
            ) from error
        return cls({str(word): int(column) for word, column in vectorizer.vocabulary_.items()}, vectorizer.idf_)

    def weigh(self, texts: Sequence[str]) -> csr_matrix:
        """Weights, shape (texts, columns), float32, sparse."""
        from scipy.sparse import csr_matrix

        if not texts:
            return csr_matrix((0, len(self._vocabulary)), dtype=np.float32)
        return self._vectorizer.transform(texts)

    def projected(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Weights in fewer numbers, shape (texts, 64): a random projection, which keeps distances about as they are."""
        weights = self.weigh(texts)
        if self._directions is None:
            chance = np.random.default_rng(0)
            self._directions = chance.standard_normal((weights.shape[1], EMBEDDED), dtype=np.float32)
        return np.asarray(weights @ self._directions, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json`` and ``idf.npy``."""
        (folder / VOCABULARY).write_text(json.dumps(self._vocabulary, ensure_ascii=False), encoding="utf-8")
        np.save(folder / IDF, self._vectorizer.idf_, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> _Words:
        """Read what ``save`` wrote.

        Raises:
            ConfigError: missing or damaged.
        """
        try:
            vocabulary = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
            return cls(vocabulary, np.load(folder / IDF, allow_pickle=False))
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise damaged(folder, error) from error


def _settings() -> dict[str, object]:
    return {"ngram_range": (1, 2), "sublinear_tf": True, "dtype": np.float32, "token_pattern": r"(?u)\b\w+\b"}
