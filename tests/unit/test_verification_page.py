import pandas as pd
import pytest

from etaflow.evaluation.verification import PUBLISHED, calibration_words, system_words, trials_words
from etaflow.pages.verification import verification_page
from etaflow.verification import COLUMNS

DRAWN = {
    "targets": 3,
    "nontargets": 5,
    "utterances": 7,
    "speakers": 4,
    "repeated": 0,
    "of_one_file": 0,
    "excluded": {"trials": 0, "recordings": []},
    "source": {"split": "test", "seed": 2, "across_sessions": True},
}


def page(rows, trials):
    table = pd.DataFrame(rows, columns=COLUMNS)
    return verification_page("Title", table, trials, PUBLISHED, {"<new>": "how"})


def test_lists_say_what_they_are_and_what_is_left_out():
    assert trials_words(DRAWN) == (
        "3 target and 5 non-target trials of 7 utterances by 4 speakers, drawn from the test split "
        "(seed 2, targets across sessions)"
    )
    excluded = {"trials": 6, "recordings": ["a.wav", "b.wav"]}
    words = trials_words(DRAWN | {"source": {"list": "veri.txt"}, "excluded": excluded})
    assert "as the list veri.txt has them; 6 trials left out, since 2 recordings are not" in words
    words = trials_words(DRAWN | {"repeated": 2, "of_one_file": 1})
    assert "; 2 of them repeat another; 1 of them compare a file with itself or a copy" in words


def test_calibrations_say_what_they_were_fitted_on():
    fitted_on = {
        "trials": "dev",
        "targets": 3,
        "nontargets": 4,
        "as_norm": None,
        "max_seconds": None,
    }
    assert calibration_words(fitted_on, ["score"]) == "3 target and 4 non-target trials of dev"
    fitted_on["as_norm"] = {"topk": 2, "cohort": 9}
    assert calibration_words(fitted_on, ["score", "norm_min"]).endswith(
        "of dev, with scores normalised by the nearest 2 of 9, norm min"
    )
    fitted_on |= {"as_norm": None, "max_seconds": 2.5}
    assert calibration_words(fitted_on, ["score"]).endswith("the first 2.5 s of each recording")


def test_systems_say_how_they_score():
    plain = {"encoder": "toy", "max_seconds": None, "as_norm": None}
    assert system_words(plain, []) == "cosines of embeddings by toy"
    all_of_it = plain | {"max_seconds": 2.5, "as_norm": {"topk": 3, "cohort": "c"}}
    assert system_words(all_of_it, ["a", "b"]) == (
        "cosines of embeddings by toy, which is trained here on a and b, of the first 2.5 s of "
        "each recording, normalised by the 3 nearest training speakers of c"
    )
    assert system_words({"average": ["x", "y"]}, []) == (
        "the mean of the scores of x and y, as they are"
    )


def test_each_list_has_a_table_and_untrained_weights_are_marked():
    rows = [
        ("ecapa", "mini", "eer", 12.3456, 10.0, 14.0, 8, "published"),
        ("<new>", "mini", "eer", 45.0, 40.0, 50.0, 8, "untrained"),
        ("ecapa", "o", "min_dcf_0.01", 0.5, 0.25, 0.75, 9, "published"),
    ]
    html = page(rows, {"o": "the O list", "mini": "drawn", "other": "of no system"})
    mini, o = html.index("<h2>mini</h2>"), html.index("<h2>o</h2>")
    assert o < html.index("the O list") < html.index("0.500<small>0.250 to 0.750</small>") < mini
    assert mini < html.index("12.346<small>10.000 to 14.000</small><small>n = 8</small>")
    assert '<td class="untrained">45.000' in html
    assert html.count("n = 8, untrained") == 1
    assert "&lt;new&gt;" in html
    assert "of no system" not in html
    assert "<li><b>&lt;new&gt;</b>: how</li>" in html
    assert html.count('class="published"') == 1
    assert "min_dcf_0.05</b>" not in html


def test_figures_of_an_unknown_list_are_refused():
    with pytest.raises(ValueError, match="figures of the list mini, of which"):
        page([("ecapa", "mini", "eer", 1, 1, 1, 1, "published")], {"o": "words"})


def test_published_rates_name_their_source():
    for each in PUBLISHED:
        assert each.source.startswith("github.com/")
        assert all(0 < rate < 5 for rate in each.rates.values())
