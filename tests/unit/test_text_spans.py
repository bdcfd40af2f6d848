"""Mentions of what an annotator marks, and of what people marked before; where a HyperText's characters are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html as lxml_html

from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import Evaluation, PipelineContext, TaskFailure, TrainingTask
from lsbatch.predictor import Predictor
from lsbatch.testing import MemoryMedia, check_pipeline
from lsbatch_pipelines.documents import HtmlDocument
from lsbatch_pipelines.html_nodes import text_nodes
from lsbatch_pipelines.mentions import Needles, words_of
from lsbatch_pipelines.text_spans import TextSpans


def config(tag: str = "Text", attributes: str = "", labels: str = "person city") -> str:
    """Labels with a smart tool on a text."""
    below = "".join(f'<Label value="{label}"/>' for label in labels.split())
    return (
        f'<View><{tag} name="t" value="$text" {attributes}/>'
        f'<Labels name="part" toName="t" smart="true">{below}</Labels></View>'
    )


def context(label_config: str, model_dir: Path | None = None, **params: Any) -> PipelineContext:
    """What the pipeline is built from."""
    return PipelineContext(LabelConfig(label_config), params, MemoryMedia(), "v", model_dir)


def span(text: str, start: int, marked: str, *labels: str) -> dict[str, Any]:
    """A region on a Text; what stands there must be what is said."""
    value = {"start": start, "end": start + len(marked), "text": marked, "labels": list(labels or ("person",))}
    assert text[start : start + len(marked)] == marked
    return {"from_name": "part", "to_name": "t", "type": "labels", "value": value}


def answer(text: str, *marks: Mapping[str, Any], label_config: str = config()) -> list[dict[str, Any]] | str:
    """The values that a mark is answered with, or the words of the refusal; what Label Studio refuses fails here."""
    labels = LabelConfig(label_config)
    built = TextSpans.build(context(label_config))
    task = Task(TaskId(1), {"text": text})
    (found,) = built.predict([task], {"result": list(marks)})
    if isinstance(found, TaskFailure):
        return found.cause
    (outcome,) = Predictor(built, labels, "v").predict_chunk([task], {"result": list(marks)})
    assert isinstance(outcome, Prediction), outcome
    for region in outcome.result:
        assert (region["from_name"], region["to_name"], region["type"]) == ("part", "t", "labels")
    return [region["value"] for region in outcome.result]


def starts(text: str, marked: str, *, at: int | None = None) -> list[int] | str:
    """Where else a text is found that is marked at its first place."""
    found = answer(text, span(text, text.index(marked) if at is None else at, marked))
    return found if isinstance(found, str) else [value["start"] for value in found]


# ------------------------------------------------------------------------------------------------ mentions


@pytest.mark.parametrize(
    ("text", "marked", "places"),
    [
        ("Bob met Ann. Bob left, and Bobby too, with Bob's dog.", "Bob", [13, 43]),
        ("Bob met BOB and bob.", "Bob", [8, 16]),
        ("Bob met BOB, bob and Bob.", "Bob", [21]),
        ("New York, New\nYork; new  York. NewYork", "New York", [10]),
        ("A (b) c (b) (bc)", "(b)", [8]),
        ("C++ or C+ or C++", "C++", [13]),
        ("3.5 is not 3, nor 3.51, but 3.5", "3.5", [28]),
        ("U.S. law in the U.S.", "U.S.", [16]),
        ("東京は東京都にある。", "東京", [3]),
        ("ปลาและปลา", "ปลา", [6]),
        ("हिन्दी में हिन्दी, हिन", "हिन्दी", [11]),
        ("café and cafe\u0301, cafe", "cafe\u0301", []),
        ("😀 Bob 😀😀 Bob", "Bob", [9]),
        ("😀 x 😀", "😀", [4]),
        ("aa aa aa aa aa", "aa aa", [6]),
        ("alone", "alone", []),
    ],
)
def test_other_mentions_are_whole_words(text: str, marked: str, places: list[int]) -> None:
    assert starts(text, marked) == places


def test_blanks_at_the_ends_of_a_mark_are_no_part_of_it() -> None:
    assert starts("So Bob, then Bob.", " Bob", at=2) == [13]


def test_all_labels_of_the_mark_are_given() -> None:
    text = "Paris met Paris"
    assert answer(text, span(text, 0, "Paris", "person", "city")) == [
        {"start": 10, "end": 15, "text": "Paris", "labels": ["person", "city"]}
    ]


def test_what_is_marked_already_stays_as_it_is() -> None:
    text = "Bob Ray and Bob and Bob"
    marks = [span(text, 0, "Bob Ray"), span(text, 12, "Bob")]
    assert isinstance(found := answer(text, *marks), list)
    assert [value["start"] for value in found] == [20]
    # The last mark counts, and what was marked twice was answered before: a mention deleted since does not come back.
    assert answer(text, *marks, span(text, 20, "Bob")) == []
    assert answer(text, span(text, 12, "Bob"), span(text, 0, "Bob Ray")) == []


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ({"from_name": "other"}, "the mark is of 'other'"),
        ({"value": {"start": 0, "end": 3, "labels": ["dog"]}}, "is 'dog', which 'part' does not have"),
        ({"value": {"start": 0, "end": 3}}, "is none; choose one first"),
        ({"value": {"start": 0, "end": 3, "labels": "person"}}, "is none"),
        ({"value": {"start": 3, "end": 3, "labels": ["person"]}}, "is empty, or outside of the 11 characters"),
        ({"value": {"start": 8, "end": 30, "labels": ["person"]}}, "is empty, or outside"),
        ({"value": {"start": "/p[1]", "end": None, "labels": ["person"]}}, "no numbers for its start and end"),
        ({"value": {"start": 0, "end": 3, "text": "Ann", "labels": ["person"]}}, "stands 'Bob', not 'Ann' as marked"),
    ],
)
def test_a_mark_that_cannot_be_answered(region: dict[str, Any], words: str) -> None:
    text = "Bob and Bob"
    found = answer(text, {**span(text, 0, "Bob"), **region})
    assert isinstance(found, str)
    assert words in found


def test_nothing_marked_gets_nothing_and_bad_tasks_their_words() -> None:
    assert answer("Bob") == []
    built = TextSpans.build(context(config()))
    assert list(built.predict([Task(TaskId(1), {"text": "x"})], {})) == [{"result": []}]
    (found,) = built.predict([Task(TaskId(1), {"text": None})], {"result": [span("Bob", 0, "Bob")]})
    assert found == TaskFailure("the task's 'text' is null, not a text")


texts = st.text(alphabet="ab A.,\n1😀é東", max_size=40)


@given(text=texts)
def test_words_joined_by_blanks_are_the_same_words(text: str) -> None:
    assert words_of(" ".join(words_of(text))) == words_of(text)


@given(text=texts, needles=st.lists(texts.map(words_of).filter(bool), max_size=5))
def test_mentions_are_in_order_and_are_what_was_looked_for(text: str, needles: list[tuple[str, ...]]) -> None:
    found = list(Needles(needles).find(text))
    assert all(words_of(text[mention.start : mention.end]) == mention.words for mention in found)
    assert {mention.words for mention in found} <= set(needles)
    assert all(one.end <= other.start for one, other in pairwise(found))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    key=st.sampled_from(
        ["from_name", "to_name", "type", "value", "value.start", "value.end", "value.text", "value.labels"]
    ),
    bad=json_values,
    tag=st.sampled_from(["Text", "HyperText"]),
)
def test_no_mark_makes_it_raise(key: str, bad: Any, tag: str) -> None:
    region: dict[str, Any] = span("Bob and Bob", 0, "Bob")
    (region["value"] if key.startswith("value.") else region)[key.removeprefix("value.")] = bad
    found = answer("Bob and Bob", region, span("Bob and Bob", 8, "Bob"), region, label_config=config(tag))
    assert isinstance(found, list | str)


# ------------------------------------------------------------------------------------------------ HyperText

#: Documents, and the paths, offsets and texts of the text nodes that Chromium makes of them in a frame of their own.
NODES: dict[str, list[tuple[str, int, str]]] = {
    "Hi <b>b</b> w<br>next 😀 x": [
        ("/text()[1]", 0, "Hi "),
        ("/b[1]/text()[1]", 3, "b"),
        ("/text()[2]", 4, " w"),
        ("/text()[3]", 7, "next 😀 x"),
    ],
    "<!DOCTYPE html>\n<html><head><title>T</title><style>p{}</style></head>\n<body>\n<p>a &amp; b<p>c</p></body>\n": [
        ("/text()[1]", 0, "\n"),
        ("/p[1]/text()[1]", 1, "a & b"),
        ("/p[2]/text()[1]", 6, "c"),
        ("/text()[2]", 7, "\n"),
    ],
    "<table>\n<tr><td>a<td>b\n<tr><th>c</th></tr>\n</table>z": [
        ("/table[1]/text()[1]", 0, "\n"),
        ("/table[1]/tbody[1]/tr[1]/td[1]/text()[1]", 1, "a"),
        ("/table[1]/tbody[1]/tr[1]/td[2]/text()[1]", 2, "b\n"),
        ("/table[1]/tbody[1]/tr[2]/th[1]/text()[1]", 4, "c"),
        ("/table[1]/tbody[1]/text()[1]", 5, "\n"),
        ("/text()[1]", 6, "z"),
    ],
    "<ul><li><p>a<li><p>b<ul><li>c</ul><li>d</ul>": [
        ("/ul[1]/li[1]/p[1]/text()[1]", 0, "a"),
        ("/ul[1]/li[2]/p[1]/text()[1]", 1, "b"),
        ("/ul[1]/li[2]/ul[1]/li[1]/text()[1]", 2, "c"),
        ("/ul[1]/li[3]/text()[1]", 3, "d"),
    ],
    "<p>one<div>two</div>three</p>four<h1>a<h2>b</h2>": [
        ("/p[1]/text()[1]", 0, "one"),
        ("/div[1]/text()[1]", 3, "two"),
        ("/text()[1]", 6, "three"),
        ("/text()[2]", 11, "four"),
        ("/h1[1]/text()[1]", 15, "a"),
        ("/h2[1]/text()[1]", 16, "b"),
    ],
    "  \n <pre>\n  code</pre>\r\n<p>a\r\nb": [
        ("/pre[1]/text()[1]", 0, "  code"),
        ("/text()[1]", 6, "\n"),
        ("/p[1]/text()[1]", 7, "a\nb"),
    ],
    # Label Studio takes these out before the browser sees them.
    "a<!-- c -->b<script>x<y</script>c<iframe src=z>i</iframe>d": [("/text()[1]", 0, "abcd")],
}


@pytest.mark.parametrize(("html", "nodes"), NODES.items(), ids=range(len(NODES)))
def test_text_nodes_are_those_of_a_browser(html: str, nodes: list[tuple[str, int, str]]) -> None:
    assert [(node.path, node.start, node.text) for node in text_nodes(html, inline=False).nodes] == nodes


def test_in_the_page_there_is_no_head() -> None:
    found = text_nodes(" \n<p>a</p>", inline=True)
    assert [(node.path, node.start) for node in found.nodes] == [("/text()[1]", 0), ("/p[1]/text()[1]", 2)]


elements = st.recursive(
    st.text(alphabet="ab <&😀é", min_size=1, max_size=8),
    lambda inner: st.tuples(st.sampled_from(["div", "b", "i", "span", "section"]), st.lists(inner, max_size=4)),
    max_leaves=12,
)


def written(element: Any) -> str:
    """The element as HTML."""
    if isinstance(element, str):
        return element.replace("&", "&amp;").replace("<", "&lt;")
    tag, children = element
    return f"<{tag}>{''.join(map(written, children))}</{tag}>"


@settings(deadline=None)
@given(children=st.lists(elements, max_size=4))
def test_paths_lead_to_their_texts(children: list[Any]) -> None:
    # In an element: lxml leaves out blanks that are alone in a body, which a browser keeps in a page.
    html = f"<div>{''.join(map(written, children))}</div>"
    found = text_nodes(html, inline=True)
    root = lxml_html.fragment_fromstring(html, create_parent="body")
    for node in found.nodes:
        (there,) = root.xpath(f".{node.path}")
        assert there == node.text == found.text[node.start : node.start + len(node.text)]
    assert found.text == "".join(root.itertext())


@given(children=st.lists(elements, min_size=1, max_size=4), data=st.data())
def test_a_value_is_read_as_it_was_written(children: list[Any], data: st.DataObject) -> None:
    document = HtmlDocument.read("".join(map(written, children)), inline=True)
    if not document.text:
        return
    start = data.draw(st.integers(0, len(document.text) - 1))
    end = data.draw(st.integers(start + 1, len(document.text)))
    value = document.value(start, end)
    assert document.place(value) == (start, end)
    by_path = {key: entry for key, entry in value.items() if key != "globalOffsets"}
    assert document.place(by_path) == (start, end)


HTML = "<p>😀 Bob and <b>Bo</b>b</p><div>Bob<br>met Ann</div><p>Bo</p>b <i>New York</i> New<br>York"


def html_mark(first: int, last: int, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A region on the HyperText."""
    value = {**HtmlDocument.read(HTML, inline=False).value(first, last), "labels": ["person"], **(more or {})}
    return {"from_name": "part", "to_name": "t", "type": "labels", "value": value}


def test_mentions_in_a_hypertext_have_both_offsets() -> None:
    assert answer(HTML, html_mark(2, 5), label_config=config("HyperText")) == [
        {
            "start": "/p[1]/b[1]/text()[1]",
            "end": "/p[1]/text()[2]",
            "startOffset": 0,
            "endOffset": 1,
            "globalOffsets": {"start": 10, "end": 13},
            "text": "Bob",
            "labels": ["person"],
        },
        {
            "start": "/div[1]/text()[1]",
            "end": "/div[1]/text()[1]",
            "startOffset": 0,
            "endOffset": 3,
            "globalOffsets": {"start": 13, "end": 16},
            "text": "Bob",
            "labels": ["person"],
        },
    ]
    # The smiley is one character, but two units of the browser.
    assert html_mark(2, 5)["value"]["startOffset"] == 3


def test_blocks_and_line_breaks_end_a_mention() -> None:
    text = HtmlDocument.read(HTML, inline=False).text
    place = text.index("New York")
    assert answer(HTML, html_mark(place, place + 8), label_config=config("HyperText")) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"startOffset": 1}, "the browser reads this HTML otherwise"),
        ({"start": "/td[9]/text()[1]", "text": None}, "leads nowhere"),
        ({"globalOffsets": None, "start": "/td[9]/text()[1]"}, "no global offsets, and no XPath"),
        ({"globalOffsets": {"start": 2, "end": 4}, "endOffset": 5}, "stands 'Bo', not 'Bob'"),
        ({"globalOffsets": {"start": 2, "end": 500}}, "outside of the"),
    ],
)
def test_a_document_that_the_browser_reads_otherwise_is_refused(more: dict[str, Any], words: str) -> None:
    found = answer(HTML, html_mark(2, 5, more), label_config=config("HyperText"))
    assert isinstance(found, str)
    assert words in found


def test_a_path_that_only_the_browser_knows_is_no_hindrance() -> None:
    mark = html_mark(2, 5, dict.fromkeys(("start", "end"), "/center[1]/text()[1]"))
    assert isinstance(answer(HTML, mark, label_config=config("HyperText")), list)


def test_what_is_never_seen_is_never_found() -> None:
    html = "<p>red</p><style>red</style><p>red</p>"
    document = HtmlDocument.read(html, inline=False)
    mark = {**html_mark(0, 3), "value": {**document.value(0, 3), "labels": ["person"]}}
    found = answer(html, mark, label_config=config("HyperText"))
    assert isinstance(found, list)
    assert [value["globalOffsets"]["start"] for value in found] == [6]


# ------------------------------------------------------------------------------------------------ batches

NAMES = {"Bob": "person", "Ann Lee": "person", "Paris": "city", "New York": "city"}


def training(count: int = 30) -> list[TrainingTask]:
    """Texts that mention a name twice; Paris is marked only once in each, and every fifth text is held out."""
    found = []
    for number in range(count):
        name = list(NAMES)[number % len(NAMES)]
        text = f"In text {number} {name} comes first, then {name} again."
        first, second = text.index(name), text.rindex(name)
        places = [first] if name == "Paris" else [first, second]
        result = [span(text, place, name, NAMES[name]) for place in places]
        found.append(TrainingTask(Task(TaskId(number + 1), {"text": text}), result, number % 5 == 4))
    return found


def fit(tasks: Sequence[TrainingTask], folder: Path, **params: Any) -> Evaluation:
    """Train into the folder."""
    folder.mkdir(exist_ok=True)
    return TextSpans.fit(context(config(), **params), iter(tasks), folder)


def predicted(text: str, folder: Path) -> Any:
    """What a batch gives for a text."""
    (found,) = TextSpans.build(context(config(), folder)).predict([Task(TaskId(1), {"text": text})])
    return found


def test_it_learns_what_is_marked_and_what_is_not(tmp_path: Path) -> None:
    evaluation = fit(training(), tmp_path)
    assert (evaluation.trained_on, evaluation.held_out, evaluation.baseline) == (24, 6, 0.0)
    assert {row.label: row.recall for row in evaluation.per_label} == {"person": 1.0, "city": 1.0}
    found = predicted("Bob saw New\nYork and Paris, not York", tmp_path)
    assert [(region["value"]["text"], region["value"]["labels"], region["score"]) for region in found["result"]] == [
        ("Bob", ["person"], 1.0),
        ("New\nYork", ["city"], 1.0),
        ("Paris", ["city"], 0.5),
    ]
    assert found["score"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert predicted("nobody", tmp_path) == {"result": []}


def test_what_is_seldom_marked_is_left_out(tmp_path: Path) -> None:
    fit(training(), tmp_path, least_share=0.6)
    assert predicted("Paris", tmp_path) == {"result": []}
    fit(training(), tmp_path, least_marked=1000)
    assert predicted("Bob", tmp_path) == {"result": []}


def test_the_longest_known_text_counts(tmp_path: Path) -> None:
    tasks = training()
    for number in range(31, 34):
        text = "She lives in New York City"
        city, york = span(text, 13, "New York City", "city"), span(text, 17, "York", "person")
        tasks.append(TrainingTask(Task(TaskId(number), {"text": text}), [city, york], False))
    fit(tasks, tmp_path)
    found = predicted("New York City, New York, York", tmp_path)
    assert [region["value"]["text"] for region in found["result"]] == ["New York City", "New York", "York"]


def test_the_same_annotations_give_the_same_file(tmp_path: Path) -> None:
    fit(training(), tmp_path / "one")
    fit(training()[::-1], tmp_path / "two")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]
    assert list(files[0]) == ["spans.json"]


def test_it_keeps_the_rules(tmp_path: Path) -> None:
    fit(training(), tmp_path)
    tasks = [entry.task for entry in training(8)]
    check_pipeline(TextSpans, label_config=config(), tasks=tasks, model_dir=tmp_path)
    contexts = [{"result": [span(text := task.data["text"], text.index("text"), "text")]} for task in tasks]
    check_pipeline(TextSpans, label_config=config(), tasks=tasks, contexts=contexts)


def test_annotations_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    text = "Bob"
    bad = [
        (None, [span(text, 0, "Bob")]),
        (text, [span(text, 0, "Bob", "dog")]),
        (text, [{"from_name": "part", "value": {"start": 0, "end": 9, "labels": ["person"]}}]),
        (text, [{"from_name": "part", "value": None}]),
        (text, [{"from_name": "part", "value": {"start": 0, "end": 3}}]),
    ]
    tasks = [
        TrainingTask(Task(TaskId(100 + n), {"text": words}), result, False) for n, (words, result) in enumerate(bad)
    ]
    evaluation = fit([*training(), *tasks], tmp_path)
    assert [task for task, _ in evaluation.unread] == [100, 101, 102, 103, 104]
    assert "no label 'dog' in 'part'" in evaluation.unread[1][1]


def test_what_it_cannot_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few annotations for 'part': 6 usable"):
        fit(training(7), tmp_path)
    with pytest.raises(ConfigError, match="none of 24 annotations marks anything"):
        fit([TrainingTask(entry.task, [], entry.held_out) for entry in training()], tmp_path)
    with pytest.raises(ConfigError, match="no annotated task is held out"):
        fit([TrainingTask(entry.task, entry.result, False) for entry in training()], tmp_path)
    with pytest.raises(ConfigError, match=r"pipeline\.params\.tres: unknown"):
        fit(training(), tmp_path, tres=1)
    with pytest.raises(ConfigError, match="there is no Labels 'prt'"):
        fit(training(), tmp_path, control="prt")


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    fit(training(), tmp_path)
    with pytest.raises(ConfigError, match="does not fit the label config"):
        TextSpans.build(context(config(labels="person"), tmp_path))
    two = config().replace("</View>", '<Labels name="other" toName="t"><Label value="x"/></Labels></View>')
    with pytest.raises(ConfigError, match="was trained for 'part', not for 'other'"):
        TextSpans.build(context(two, tmp_path, control="other"))
    stored = json.loads((tmp_path / "spans.json").read_text(encoding="utf-8"))
    for damage in ({**stored, "entries": [["Bob", "person", 3, 0]]}, {"control": "part"}, [], "no JSON"):
        content = damage if isinstance(damage, str) else json.dumps(damage)
        (tmp_path / "spans.json").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match="missing or damaged"):
            TextSpans.build(context(config(), tmp_path))


def test_without_a_model_a_batch_fails_in_words() -> None:
    (found,) = TextSpans.build(context(config())).predict([Task(TaskId(1), {"text": "x"})])
    assert isinstance(found, TaskFailure)
    assert "no model is trained yet" in found.cause


@pytest.mark.parametrize(
    ("label_config", "words"),
    [
        (config("Image"), "it has no Labels on Text or HyperText"),
        (config(attributes='valueType="url"'), "behind an address"),
        (config(attributes='encoding="base64"'), "that is encoded"),
        (config(labels=""), "no labels of its own"),
        (config().replace("$text", "$a and $b"), "shows no single key"),
    ],
)
def test_a_config_that_it_cannot_serve(label_config: str, words: str) -> None:
    assert words in str(TextSpans.why_not(LabelConfig(label_config)))
    with pytest.raises(ConfigError, match="cannot be served"):
        TextSpans.build(context(label_config))
