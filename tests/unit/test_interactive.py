"""From a rectangle, a click or a stroke to a mask or a polygon, on drawn images whose right masks are known."""

from __future__ import annotations

import builtins
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lsbatch.entities import Prediction, Task, TaskId
from lsbatch.errors import ConfigError
from lsbatch.label_config import LabelConfig
from lsbatch.ports import PipelineContext, TaskFailure
from lsbatch.predictor import Predictor
from lsbatch.testing import MemoryMedia, check_pipeline
from lsbatch_pipelines.interactive_segmentation import KEPT_IMAGES, InteractiveSegmentation
from lsbatch_pipelines.marks import Box

Flags = NDArray[np.bool_]
LABELS = '<Label value="ball"/><Label value="box"/>'
SMART = "".join(
    f'<{tag} name="{name}" toName="img" smart="true">{LABELS}{more}</{tag}>'
    for tag, name, more in (
        ("RectangleLabels", "rect", '<Label value="odd"/>'),
        ("KeyPointLabels", "point", ""),
        ("BrushLabels", "stroke", ""),
    )
)
BRUSH = f'<BrushLabels name="mask" toName="img">{LABELS}</BrushLabels>'
POLYGON = f'<PolygonLabels name="outline" toName="img">{LABELS}</PolygonLabels>'
WIDTH, HEIGHT = 400, 300
#: The disc: its middle and its radius in pixels.
MIDDLE, RADIUS = (180, 140), 60


def config(*controls: str) -> str:
    """A label config with an image and these controls."""
    return f'<View><Image name="img" value="$image"/>{"".join(controls)}</View>'


def drawn(width: int = WIDTH, height: int = HEIGHT, *, noise: float = 12.0) -> Image.Image:
    """A red disc on green ground, and a red square far from it."""
    scale = width / WIDTH
    image = Image.new("RGB", (width, height), (90, 120, 80))
    draw = ImageDraw.Draw(image)
    draw.rectangle([place * scale for place in (320, 30, 380, 90)], fill=(200, 60, 60))
    x, y = MIDDLE
    draw.ellipse([place * scale for place in (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)], fill=(200, 70, 60))
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, noise, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def disc(width: int = WIDTH, height: int = HEIGHT) -> Flags:
    """Where the disc is."""
    scale = width / WIDTH
    y, x = np.mgrid[:height, :width]
    return np.asarray((x - MIDDLE[0] * scale) ** 2 + (y - MIDDLE[1] * scale) ** 2 < (RADIUS * scale) ** 2)


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PICTURE = file_of(drawn())


def mark(kind: str, name: str, value: Mapping[str, Any], label: str = "ball", **more: Any) -> dict[str, Any]:
    """A region as the browser sends it."""
    base = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "img", "id": "a1"}
    return {**base, "type": kind, "from_name": name, "value": {**value, kind: [label]}, **more}


def rectangle(x: float, y: float, width: float, height: float, rotation: float = 0, **more: Any) -> dict[str, Any]:
    """A smart rectangle, in pixels of the image."""
    value = {"x": x / 4, "y": y / 3, "width": width / 4, "height": height / 3, "rotation": rotation}
    return mark("rectanglelabels", "rect", value, **more)


def point(x: float, y: float, **more: Any) -> dict[str, Any]:
    """A smart key point, in pixels of the image."""
    return mark("keypointlabels", "point", {"x": x / 4, "y": y / 3, "width": 0.4}, **more)


def stroke(*places: tuple[int, int], **more: Any) -> dict[str, Any]:
    """A stroke of the smart brush through these places."""
    image = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).line(places, fill=255, width=8)
    return mark("brushlabels", "stroke", {"format": "rle", "rle": mask2rle(np.asarray(image))}, **more)


AROUND = rectangle(110, 70, 140, 140)
CLICK = point(180, 140, is_positive=1)
WAYS = {
    "rectangle": [AROUND],
    "large rectangle": [rectangle(60, 20, 240, 240)],
    "click": [CLICK],
    "clicks": [CLICK, point(150, 120), point(350, 60, is_positive=0), point(20, 20, is_positive=False)],
    "click beside": [point(210, 160, is_positive=True)],
    "stroke": [stroke((150, 120), (200, 170))],
    "rectangle and click": [AROUND, CLICK],
}


def ask(
    *marks: Mapping[str, Any], label_config: str = config(BRUSH, SMART), content: bytes = PICTURE, uri: str = "u"
) -> Prediction | TaskFailure:
    """What the pipeline answers; a result that does not fit the label config would fail here."""
    labels = LabelConfig(label_config)
    built = InteractiveSegmentation.build(PipelineContext(labels, {}, MemoryMedia({uri: content}), "v"))
    task = Task(TaskId(1), {"image": "u"})
    (answer,) = built.predict([task], {"result": list(marks)})
    if isinstance(answer, TaskFailure):
        return answer
    (outcome,) = Predictor(built, labels, "v").predict_chunk([task], {"result": list(marks)})
    assert isinstance(outcome, Prediction), outcome
    return outcome


def mask_of(answer: Prediction | TaskFailure, width: int = WIDTH, height: int = HEIGHT) -> Flags:
    """The mask of an answer, read by the SDK or drawn from the polygon's corners."""
    assert isinstance(answer, Prediction), answer
    (region,) = answer.result
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (width, height, 0)
    value = region["value"]
    if region["type"] == "brushlabels":
        assert value["format"] == "rle"
        pixels = decode_rle(value["rle"]).reshape(height, width, 4)
        assert set(np.unique(pixels)) <= {0, 255}
        return np.asarray(pixels[:, :, 3] > 0)
    image = Image.new("1", (width, height))
    ImageDraw.Draw(image).polygon([(x * width / 100, y * height / 100) for x, y in value["points"]], fill=1)
    return np.asarray(image)


def overlap(one: Flags, other: Flags) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


# ------------------------------------------------------------------------------------------------ the object


@pytest.mark.parametrize("output", [BRUSH, POLYGON], ids=["brush", "polygon"])
@pytest.mark.parametrize("marks", WAYS.values(), ids=WAYS)
def test_the_disc_is_found(marks: list[dict[str, Any]], output: str) -> None:
    answer = ask(*marks, label_config=config(output, SMART))
    assert overlap(mask_of(answer), disc()) > 0.9
    assert isinstance(answer, Prediction)
    assert answer.result[0]["value"][answer.result[0]["type"]] == ["ball"]
    assert 0 <= (answer.score or -1) <= 1


def test_a_turned_rectangle_holds_what_its_corners_hold() -> None:
    # A square of 150 x 150 about the middle of the disc, turned by 30 degrees about its upper left corner.
    angle = math.radians(30)
    x = MIDDLE[0] - 75 * math.cos(angle) + 75 * math.sin(angle)
    y = MIDDLE[1] - 75 * math.sin(angle) - 75 * math.cos(angle)
    assert overlap(mask_of(ask(rectangle(x, y, 150, 150, 30))), disc()) > 0.9
    # The same without the turn cuts the disc.
    cut = ask(rectangle(x, y, 150, 150))
    assert isinstance(cut, TaskFailure) or overlap(mask_of(cut), disc()) < 0.9


@given(
    x=st.floats(0, 100),
    y=st.floats(0, 100),
    width=st.floats(1, 100),
    height=st.floats(1, 100),
    rotation=st.floats(-360, 360),
)
def test_turning_changes_no_length(x: float, y: float, width: float, height: float, rotation: float) -> None:
    corners = np.array(Box(x, y, width, height, rotation).corners(640, 480))
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    assert sides == pytest.approx([width * 6.4, height * 4.8, width * 6.4, height * 4.8])
    assert corners[0] == pytest.approx([x * 6.4, y * 4.8])


def test_a_large_photo_is_answered_in_its_own_size() -> None:
    content = file_of(drawn(4000, 3000), "JPEG")
    marks = [{**region, "original_width": 4000, "original_height": 3000} for region in (AROUND, CLICK)]
    for region in marks:
        assert overlap(mask_of(ask(region, content=content), 4000, 3000), disc(4000, 3000)) > 0.97


def test_a_photo_is_turned_as_the_browser_turns_it() -> None:
    # 6: the camera was held upright. Stored lying, shown standing.
    exif = Image.Exif()
    exif[0x0112] = 6
    content = file_of(drawn().transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert overlap(mask_of(ask(AROUND, content=content)), disc()) > 0.9
    lying = file_of(drawn().transpose(Image.Transpose.ROTATE_90))
    answer = ask(AROUND, content=lying)
    assert isinstance(answer, TaskFailure)
    assert "300 x 400 pixels, but 400 x 300 where it was marked" in answer.cause


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_every_kind_are_read(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = Image.fromarray(np.where(disc(), 230, 40).astype(np.uint8)).convert("RGB").convert(mode)
    assert overlap(mask_of(ask(AROUND, content=file_of(image, kind))), disc()) > 0.9


def test_a_mark_without_a_size_is_answered_in_the_size_of_the_file() -> None:
    region = {key: value for key, value in AROUND.items() if not key.startswith("original")}
    assert overlap(mask_of(ask(region)), disc()) > 0.9


def test_the_browsers_smaller_copy_gets_a_mask_of_its_size() -> None:
    region = {**AROUND, "original_width": 200, "original_height": 150}
    assert overlap(mask_of(ask(region), 200, 150), disc(200, 150)) > 0.9


def test_the_control_with_the_label_is_filled() -> None:
    other = BRUSH.replace("mask", "other").replace(LABELS, '<Label value="else"/>')
    answer = ask(AROUND, label_config=config(other, POLYGON, BRUSH, SMART))
    assert isinstance(answer, Prediction)
    assert answer.result[0]["from_name"] == "outline"
    answer = ask(AROUND, label_config=config(SMART))
    assert isinstance(answer, Prediction)
    assert answer.result[0]["from_name"] == "stroke"


def test_tools_without_labels_of_their_own_take_them_from_labels() -> None:
    tools = '<Rectangle name="rect" toName="img" smart="true"/>'
    region = mark("rectangle", "rect", {**AROUND["value"], "labels": ["ball"]})
    assert overlap(mask_of(ask(region, label_config=config(BRUSH, tools))), disc()) > 0.9


# ------------------------------------------------------------------------------------------------ what cannot be

BAD: dict[str, tuple[list[Any], str]] = {
    "no size": ([rectangle(100, 100, 0, 0)], "has no size"),
    "outside": ([rectangle(500, 100, 50, 50)], "lies outside of the image"),
    "point outside": ([point(500, 10)], "lies outside of the image"),
    "all negative": ([point(180, 140, is_positive=0), point(20, 20, is_positive=False)], "all key points are negative"),
    "label": ([rectangle(110, 70, 140, 140, label="odd")], "has no label 'odd'"),
    "no label": ([{**AROUND, "value": {"x": 1, "y": 1, "width": 9, "height": 9}}], "the mark has no label"),
    "words": ([mark("rectanglelabels", "rect", {"x": "1", "y": None, "width": 3, "height": 3})], "no numbers for x, y"),
    "far": ([mark("keypointlabels", "point", {"x": 10**400, "y": 3})], "far outside of the image, by x, y"),
    "two sizes": ([AROUND, {**CLICK, "original_width": 20_000, "original_height": 15_000}], "images of 2 sizes"),
    "junk rle": (
        [mark("brushlabels", "stroke", {"rle": [*mask2rle(disc().astype(np.uint8))[:4], *[255] * 50]})],
        "cannot be decoded",
    ),
    "true size": ([{**stroke((180, 140), (190, 150)), "original_width": True}], "not the size of its image"),
    "nan": ([point(math.nan, 3)], "no numbers for x, y"),
    "kind": ([mark("ellipselabels", "rect", {"x": 1})], "nothing is marked with a rectangle"),
    "turned": ([rectangle(110, 70, 140, 140, image_rotation=90)], "the image is turned"),
    "other image": ([{**AROUND, "to_name": "second"}], "nothing is marked"),
    "bad rle": ([mark("brushlabels", "stroke", {"rle": [1, 2, 3]})], "not of 400 x 300 pixels"),
    "cut rle": ([mark("brushlabels", "stroke", {"rle": mask2rle(disc().astype(np.uint8))[:40]})], "cannot be decoded"),
    "huge rle": ([mark("brushlabels", "stroke", {"rle": [255] * 40})], "not of 400 x 300 pixels"),
    "no rle": ([mark("brushlabels", "stroke", {"rle": "abc"})], "holds no run lengths"),
    "empty stroke": ([mark("brushlabels", "stroke", {"rle": mask2rle(np.zeros((300, 400), np.uint8))})], "is empty"),
    "huge": ([{**AROUND, "original_width": 400_000, "original_height": 300_000}], "more than 89,000,000"),
}


@pytest.mark.parametrize(("marks", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_answered_is_said(marks: list[Any], words: str) -> None:
    answer = ask(*marks)
    assert isinstance(answer, TaskFailure), answer
    assert words in answer.cause


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no image", "of no kind that Pillow knows"), (b"<html>", "it is HTML"), (PICTURE[:200], "cannot be read")],
    ids=["other", "html", "torn"],
)
def test_a_broken_image_is_said(content: bytes, words: str) -> None:
    answer = ask(AROUND, content=content)
    assert isinstance(answer, TaskFailure)
    assert words in answer.cause
    gone = ask(AROUND, uri="elsewhere")
    assert isinstance(gone, TaskFailure)
    assert "not found" in gone.cause


def test_an_image_of_one_colour_gets_words_or_a_mask() -> None:
    flat = file_of(Image.new("RGB", (WIDTH, HEIGHT), (120, 120, 120)))
    for marks in WAYS.values():
        answer = ask(*marks, content=flat)
        assert isinstance(answer, Prediction) or "stands out" in answer.cause


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60)
@given(
    key=st.sampled_from([*AROUND, "value.x", "value.width", "value.rotation", "value.rectanglelabels"]), bad=json_values
)
def test_no_mark_makes_it_raise(key: str, bad: Any) -> None:
    region: dict[str, Any] = {**AROUND, "value": dict(AROUND["value"])}
    (region["value"] if key.startswith("value.") else region)[key.removeprefix("value.")] = bad
    answer = ask(region)
    assert isinstance(answer, Prediction | TaskFailure)


# ------------------------------------------------------------------------------------------------ the pipeline


def test_it_keeps_the_rules() -> None:
    files = {f"u{number}": file_of(drawn(noise=number)) for number in range(3)}
    check_pipeline(
        InteractiveSegmentation,
        label_config=config(BRUSH, SMART),
        tasks=[Task(TaskId(number), {"image": uri}) for number, uri in enumerate(files, start=1)],
        media=MemoryMedia(files),
        contexts=[{"result": marks} for marks in (WAYS["rectangle"], WAYS["clicks"], [])],
    )


def test_an_image_is_read_once_for_many_clicks() -> None:
    class Counting(MemoryMedia):
        reads = 0

        def read(self, uri: str) -> bytes:
            self.reads += 1
            return super().read(uri)

    files = {f"u{number}": PICTURE for number in range(KEPT_IMAGES + 1)}
    media = Counting(files)
    built = InteractiveSegmentation.build(PipelineContext(LabelConfig(config(BRUSH, SMART)), {}, media))

    def click(uri: str) -> None:
        assert not isinstance(built.predict([Task(TaskId(1), {"image": uri})], {"result": [CLICK]})[0], TaskFailure)

    click("u0")
    click("u0")
    assert media.reads == 1
    for uri in files:
        click(uri)
    click("u0")
    assert media.reads == KEPT_IMAGES + 2


def test_without_a_mark_a_batch_fails_in_words() -> None:
    built = InteractiveSegmentation.build(PipelineContext(LabelConfig(config(BRUSH, SMART)), {}, MemoryMedia()))
    assert built.model_version == InteractiveSegmentation.model_version == "interactive-segmentation-1"
    (answer,) = built.predict([Task(TaskId(1), {"image": "u"})])
    assert isinstance(answer, TaskFailure)
    assert "nothing is marked" in answer.cause
    # Label Studio asks once more when the marks of an accepted answer go away.
    assert list(built.predict([Task(TaskId(1), {"image": "u"})], {"result": []})) == [{"result": []}]
    assert list(built.predict([Task(TaskId(1), {"image": "u"})], {})) == [{"result": []}]


@pytest.mark.parametrize(
    ("label_config", "words"),
    [
        (config(BRUSH), 'with smart="true" on Image'),
        (config(SMART.replace("BrushLabels", "EllipseLabels")), "it has no BrushLabels or PolygonLabels"),
        (config(BRUSH, SMART).replace('value="$image"', 'valueList="$images"'), "shows a single key"),
        ('<View><Text name="t" value="$t"/></View>', 'with smart="true" on Image'),
    ],
)
def test_a_config_that_it_cannot_serve(label_config: str, words: str) -> None:
    assert words in str(InteractiveSegmentation.why_not(LabelConfig(label_config)))


def test_params_choose_the_control() -> None:
    labels = LabelConfig(config(BRUSH, POLYGON, SMART))
    built = InteractiveSegmentation.build(PipelineContext(labels, {"control": "outline"}, MemoryMedia({"u": PICTURE})))
    (answer,) = built.predict([Task(TaskId(1), {"image": "u"})], {"result": [AROUND]})
    assert isinstance(answer, Mapping)
    assert answer["result"][0]["type"] == "polygonlabels"
    with pytest.raises(ConfigError, match="there is no BrushLabels or PolygonLabels 'msk'"):
        InteractiveSegmentation.build(PipelineContext(labels, {"control": "msk"}, MemoryMedia()))


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **rest: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *more, **rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="needs OpenCV") as caught:
        InteractiveSegmentation.build(PipelineContext(LabelConfig(config(BRUSH, SMART)), {}, MemoryMedia()))
    assert "pip install 'lsbatch[interactive]'" in caught.value.hint
