"""The page of an evaluation in a real browser."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from ls_support import TEXT_CONFIG, TOPICS, topic_region
from lsbatch.entities import Annotation, StoredPrediction, TaskId
from lsbatch.evaluation_page import evaluation_page
from lsbatch.label_config import LabelConfig
from lsbatch.operations.evaluating import EvaluationReport
from lsbatch.quality.scorecard import Scorecard, compared

WIDTH, HEIGHT = 1200, 3000
START = datetime(2026, 1, 1, tzinfo=UTC)


def page() -> str:
    """Of two versions, the second better and a week younger."""
    chance = np.random.default_rng(0)
    versions = []
    for number, skill in enumerate((0.6, 0.8)):
        card = Scorecard(f"v{number}", LabelConfig(TEXT_CONFIG))
        for task in range(1, 301):
            score = float(chance.beta(6 * skill, 2))
            said = task % 3
            guess = said if chance.random() < score else (said + 1) % 3
            made = START + timedelta(days=7 * number)
            result = [topic_region(TOPICS[guess])]
            prediction = StoredPrediction(task, TaskId(task), result, score, card.model_version, made)
            card.add(prediction, Annotation(task, (topic_region(TOPICS[said]),), "", parent_prediction=task))
        versions.append(card.result())
    report = EvaluationReport(3, 300, versions, "v0")
    found = compared(versions[1], versions[0])
    assert found is not None
    report.differences["v1"] = found
    return evaluation_page(report, "https://label.example.org")


def test_a_browser_shows_the_page(chromium: str, tmp_path: Path) -> None:
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(page(), encoding="utf-8")
    browser = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*browser, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    # As the browser understood it: what is not closed or nested wrongly would have moved.
    assert shown.stdout.count("<figure") == shown.stdout.count("<svg") == 7
    assert shown.stdout.count('<table class="mistakes">') == 2
    assert "https://label.example.org/projects/3/data?task=" in shown.stdout
    command = [*browser, "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}"]
    subprocess.run([*command, path.as_uri()], capture_output=True, timeout=120, check=True)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert image.size == (WIDTH, HEIGHT)
    inked = (pixels < 250).any(axis=1).mean()
    assert 0.02 < inked < 0.5, "text and pictures, and neither a blank page nor a black one"
    # The bars of the histogram and the squares of the confusion are drawn.
    blue = (pixels[:, 2].astype(int) - pixels[:, 0] > 60).mean()
    assert blue > 0.005
