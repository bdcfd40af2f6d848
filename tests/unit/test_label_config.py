"""What a label config allows: read here as the SDK reads it, and judged by the SDK."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ls_support import TEXT_CONFIG, environment, topic_region
from lsbatch.errors import RefusedError
from lsbatch.label_config import LabelConfig

NESTED = """
<View>
  <!-- {"data": {"text": "sample"}} -->
  <Header value="Choose"/>
  <Image name="picture" value="$url"/>
  <Text name="text" value="$text"/>
  <View className="right">
    <Choices name="mood" toName="text" choice="multiple">
      <View><Choice value="good"/><View><Choice value="Bad!" alias="bad"/></View></View>
      <Choice value="good"/><Choice/>
    </Choices>
  </View>
  <Labels name="part" toName="missing,text"><Label value="a"/><Label value="b" background="red"/></Labels>
  <RectangleLabels name="box" toName="picture"><Label value="cat"/></RectangleLabels>
  <TextArea name="note" toName="picture"/>
  <Filter name="filter" toName="part"/>
  <Choices name="lost" toName="nowhere"><Choice value="x"/><Choice value="y"/></Choices>
  <Choice value="of nobody"/>
</View>
"""
LISTS = (
    '<View><Image name="pages" valueList="$pages"/><Choices name="c" toName="pages" perItem="true">'
    '<Choice value="A"/><Choice value="B"/></Choices></View>'
)


def choice(label: str, *, control: str = "topic") -> dict[str, object]:
    """A prediction that chooses one label."""
    return {"result": [{**topic_region(label), "from_name": control}], "score": 0.5, "model_version": "v"}


@pytest.mark.parametrize("text", [TEXT_CONFIG, NESTED, LISTS], ids=["plain", "nested", "lists"])
def test_controls_are_those_that_the_sdk_finds(text: str) -> None:
    sdk = LabelInterface(text)
    objects = {tag.name: tag.tag for tag in sdk.objects}
    expected = [
        (tag.name, tag.tag, tag.objects[0].name, objects[tag.objects[0].name], tuple(tag.labels))
        for tag in sdk.controls
        if tag.objects
    ]
    found = LabelConfig(text).controls
    assert [(entry.name, entry.tag, entry.to_name, entry.object_tag, entry.labels) for entry in found] == expected
    assert len(expected) >= 1


def test_the_alias_is_the_label() -> None:
    mood = LabelConfig(NESTED).find("Choices", "Image", "Text")
    assert mood is not None
    assert (mood.name, mood.labels, mood.multiple) == ("mood", ("good", "bad"), True)


@pytest.mark.parametrize(
    ("attributes", "key"),
    [
        ('value="$text"', "text"),
        ('value="$a.b-c"', "a.b-c"),
        ('value="text"', ""),
        ('value="$first, $second"', ""),
        ('value="Read $text"', ""),
        ('valueList="$pages"', ""),
    ],
)
def test_the_data_key_is_one_whole_variable(attributes: str, key: str) -> None:
    text = f'<View><Text name="t" {attributes}/><Choices name="c" toName="t"><Choice value="A"/></Choices></View>'
    [control] = LabelConfig(text).controls
    assert control.data_key == key


def test_find_tells_tags_apart() -> None:
    config = LabelConfig(NESTED)
    assert config.find("Choices", "Image") is None
    assert config.find("Labels", "Image", "HyperText") is None
    assert [entry.name for entry in config.find_all("TextArea", "Image")] == ["note"]


@pytest.mark.parametrize("text", ["", "  \n", "<View>", "no xml", "<View></view>", "\x00"])
def test_a_config_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match=r"no label config|cannot be read"):
        LabelConfig(text)


def test_the_verdict_is_the_servers() -> None:
    config = LabelConfig(TEXT_CONFIG)
    assert config.why_invalid(choice("food")) is None
    assert config.why_invalid({"result": [], "score": None}) is None
    for bad in (choice("Food"), choice("food", control="mood"), {**choice("food"), "score": 1.5}):
        assert config.why_invalid(bad)
    assert LabelConfig(NESTED).why_invalid(choice("bad", control="mood")) is None
    assert "Bad!" in (LabelConfig(NESTED).why_invalid(choice("Bad!", control="mood")) or "")


def test_a_config_travels_as_its_text() -> None:
    config = LabelConfig(NESTED)
    assert config.why_invalid(choice("good", control="mood")) is None
    travelled = pickle.loads(pickle.dumps(config))
    assert (travelled.text, travelled.hash, travelled.controls) == (config.text, config.hash, config.controls)
    assert config.hash != LabelConfig(TEXT_CONFIG).hash


def test_reading_controls_does_not_load_the_sdk() -> None:
    code = (
        "import sys; from lsbatch.label_config import LabelConfig\n"
        f"config = LabelConfig({NESTED!r}); print(len(config.controls), config.hash)\n"
        "print(sorted(name for name in sys.modules if name.startswith(('label_studio_sdk', 'jsf', 'faker'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [f"4 {LabelConfig(NESTED).hash}", "[]"]
