"""What the page says of a bundle, its pictures, and what it refuses; without a browser."""

import asyncio
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from etaflow.serve import words
from etaflow.serve.bundle import ServedBundle
from etaflow.serve.page import build_page
from etaflow.serve.pictures import picture, picture_html
from etaflow.serve.service import Service
from etaflow.serve.settings import Settings
from tests.serve_tools import metrics_tables


@pytest.fixture
def served(bundle: Path) -> ServedBundle:
    return ServedBundle.read(str(bundle))


@pytest.fixture
def blocks(served: ServedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return list(build_page(Service(served, Settings())).blocks.values())


def test_tasks_that_a_bundle_lacks_are_said_to_be_missing(blocks: list[Any]) -> None:
    texts = [str(getattr(block, "value", "")) for block in blocks]
    for task, key in (("verify", "verifier: true"), ("separate", "separator: NAME")):
        (text,) = (text for text in texts if f"no model to {task} with" in text)
        assert f"<code>{key}</code>" in text
    names = {getattr(block, "elem_id", None) for block in blocks}
    assert "convert-button" in names
    assert not names & {"verify-button", "separate-button"}
    (method,) = (block for block in blocks if getattr(block, "elem_id", None) == "method")
    assert method.value == "knn-eta-source"
    assert [name for name, _ in method.choices][:3] == ["copy", "knn", "linear"]


def test_recordings_are_not_fetched_from_addresses(blocks: list[Any]) -> None:
    fields = [b for b in blocks if getattr(b, "elem_id", None) in ("source", "references")]
    assert len(fields) == 2
    for field in fields:
        with pytest.raises(Exception, match="not fetched from an address"):
            asyncio.run(field.async_move_resource_to_block_cache("http://127.0.0.1:1/a.wav"))


def test_nothing_is_shown_to_programs(blocks: list[Any], served: ServedBundle) -> None:
    page = build_page(Service(served, Settings()))
    assert page.get_api_info()["named_endpoints"] == {}
    assert not page.analytics_enabled
    assert page.delete_cache == (60, 1800)


def test_a_heading_says_what_was_trained_on_what(served: ServedBundle) -> None:
    assert words.trained_on(served) == (
        "Eta model and vocoder: trained on the corpus mine, 1.00 h, 6 utterances of 3 speakers "
        "(CC BY 4.0)."
    )
    assert served.trained_on is not None
    (mine,) = served.trained_on["eta"]
    yours = mine | {"corpus": "yours", "licence": ""}
    other = {"vocoder": [yours], "speaker": [mine, yours]}
    assert words.trained_on(replace(served, trained_on=other)) == (
        "speaker encoder: trained on the corpus mine, 1.00 h, 6 utterances of 3 speakers "
        "(CC BY 4.0). "
        "speaker encoder and vocoder: trained on the corpus yours, 1.00 h, 6 utterances of "
        "3 speakers."
    )
    assert words.trained_on(replace(served, trained_on={})) == (
        "Its models were not trained in this run; the tab Run says where from."
    )
    # A bundle of before it was written down.
    assert words.trained_on(replace(served, trained_on=None)) == ""
    heading = words.heading(replace(served, run="<b>"))
    assert "<q>&lt;b&gt;</q>" in heading
    assert "With these models conversions are noise: they" in heading
    weights = {"convert": "trained", "separate": "untrained"}
    trained = words.heading(replace(served, weights=weights))
    assert "It converts voices, separates speakers." in trained
    assert "With these models separated signals are noise: they" in trained
    assert "Warning" not in words.heading(replace(served, weights={"convert": "published"}))


def test_metrics_have_their_intervals(served: ServedBundle) -> None:
    assert words.metrics(replace(served, metrics={})) == (
        "<p>This bundle holds no tables of the run's metrics.</p>"
    )
    tables = {name: table.astype(str) for name, table in metrics_tables().items()}  # as they lie
    shown = words.metrics(replace(served, metrics=tables))
    assert re.findall("<h[23]>(.*?)</h[23]>", shown) == [
        *("Voice conversion", "Speaker verification", "Trials: pairs"),
        *("Source separation", "Mixtures: both"),
    ]
    cell = "86.30<small>80.00 to 90.00</small><small>n = 60, untrained</small>"
    assert cell in shown
    assert "<b>eer</b>: equal error rate" in shown
    strange = tables["conversion"].head(1).assign(system="<i>")
    assert "<i>" not in words.metrics(replace(served, metrics={"conversion": strange}))


def test_a_card_brings_no_images(served: ServedBundle) -> None:
    card = words.card(replace(served, card="# One\n\n![seen](https://example.org/x.png)"))
    assert card == "## One\n\n[seen](https://example.org/x.png)"
    assert words.card(replace(served, card="")) == "This bundle has no card."


def test_a_decision_is_in_words() -> None:
    trials = {"name": "t<", "targets": 3, "nontargets": 4, "corpora": ["a", "b"], "eer": 12.5}
    said = {"score": -1.25, "threshold": 0.0, "unit": "log-likelihood ratio", "system": "s"}
    said |= {"trials": {**trials, "eer_trials": "u"}}
    text = words.decision({**said, "same_speaker": False})
    assert "</span> Different speakers</p>" in text
    assert "The score -1.2500 is below the threshold 0.0000." in text
    assert "3 target and 4 non-target trials of the list t&lt; (corpora: a, b); equal" in text
    assert "</span> Same speaker</p>" in words.decision({**said, "same_speaker": True})


@pytest.mark.parametrize("seconds", [0.1, 2.0, 60.0])
def test_a_picture_shows_a_tone_where_it_is(seconds: float) -> None:
    rate = 16_000
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 2_000 * time).astype(np.float32)
    image = imread(io.BytesIO(picture(tone, rate)))
    assert image.shape[:2] == (576, 800)
    # Down the middle of the spectrogram: the brightest is a quarter of 8 kHz above its foot.
    column = image[:, 450, :3].sum(axis=1)
    inside = np.flatnonzero(column[230:480] < 2.9) + 230  # not the white around it
    brightest = inside[column[inside].argmax()]
    assert (inside[-1] - brightest) / (inside[-1] - inside[0]) == pytest.approx(0.25, abs=0.04)


def test_a_picture_is_described(served: ServedBundle) -> None:
    silence = picture_html('"A"', np.zeros(1_600, np.float32), 16_000)
    assert "&quot;A&quot;: 0.10 s at 16,000 Hz" in silence
    assert 'alt="Waveform and spectrogram of &quot;A&quot;, 0.10 seconds long"' in silence
    assert 'src="data:image/png;base64,' in silence
