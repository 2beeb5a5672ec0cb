"""Pictures of what a model predicts: everything in `details` is shown, and nothing in it can break the page."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report_html import HOSTILE, STRANGE, Page, contrast, write_run

from aitrain.report_html import STYLE, write_html
from aitrain.report_pictures import MAX_CLASSES, MAX_DOTS, MAX_IMPORTANT

CALIBRATION = [
    {"from": 0.0, "to": 0.5, "confidence": None, "accuracy": None, "count": 0},
    {"from": 0.5, "to": 0.75, "confidence": 0.6, "accuracy": 0.5, "count": 10},
    {"from": 0.75, "to": 1.0, "confidence": 0.9, "accuracy": 0.8, "count": 30},
]

CLASSIFICATION: dict[str, Any] = {
    "kind": "classification",
    "split": "validation",
    "rows": 42,
    "classes": ["ham", "spam", "news"],
    "confusion": [[18, 2, 0], [5, 10, 1], [0, 0, 6]],
    "per_class": [
        {"class": "ham", "precision": 0.783, "recall": 0.9, "f1": 0.837, "support": 20},
        {"class": "spam", "precision": 0.833, "recall": 0.625, "f1": 0.714, "support": 16},
        {"class": "news", "precision": None, "recall": 0.0, "f1": None, "support": 6},
    ],
    "calibration": CALIBRATION,
    "wrong": [
        {"row": 7, "text": "free lunch", "truth": "ham", "prediction": "spam", "probability": 0.71},
        {"row": 1234, "truth": "spam", "prediction": "ham", "probability": 0.993},
    ],
    "confused": [{"truth": "spam", "prediction": "ham", "count": 5}],
}

MULTI_LABEL: dict[str, Any] = {
    "kind": "multi_label",
    "classes": ["joy", "anger"],
    "per_class": [
        {"class": "joy", "precision": 0.8, "recall": 0.5, "f1": 0.615, "support": 8, "best_threshold": 0.35,
         "tp": 4, "fp": 1, "fn": 4, "tn": 91},
        {"class": "anger", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2, "best_threshold": None,
         "tp": 2, "fp": 0, "fn": 0, "tn": 98},
    ],
    "calibration": CALIBRATION,
    "wrong": [{"row": 3, "text": "hm", "truth": ["joy", "anger"], "prediction": [], "probability": 0.2}],
}  # fmt: skip

REGRESSION: dict[str, Any] = {
    "kind": "regression",
    "targets": ["price", "days"],
    "per_target": [
        {"target": "price", "mse": 4.0, "mae": 1.5, "rmse": 2.0, "r2": 0.83, "pearson": 0.91, "spearman": 0.9,
         "mean": 10.0, "deviation": 5.0},
        {"target": "days", "mse": 1.0, "mae": 1.0, "rmse": 1.0, "r2": None, "pearson": None, "spearman": None,
         "mean": 3.0, "deviation": 0.0},
    ],
    "points": {"price": [[1.0, 1.5], [10.0, 8.0], [20.0, 23.0]], "days": [[3.0, 2.0], [3.0, 4.0]]},
    "residuals": {"price": {"edges": [-2.0, 0.0, 2.0, 4.0], "counts": [1, 1, 1]}},
    "worst": [{"row": 9, "text": "a castle", "target": "price", "truth": 20.0, "predicted": 23.0}],
}  # fmt: skip

TAGS: dict[str, Any] = {
    "kind": "tags",
    "per_entity": [{"entity": "PER", "precision": 0.9, "recall": 0.8, "f1": 0.847, "support": 50}],
    "tags": ["O", "B-PER", "I-PER"],
    "confusion": [[90, 1, 0], [2, 7, 0], [0, 0, 4]],
    "wrong": [
        {"row": 5, "tokens": ["Ann", "Lee", "left"], "truth": "B-PER I-PER O", "prediction": "B-PER O O"},
        {"row": 6, "truth": "PER: Ann", "prediction": "none"},
    ],
}

TEXTS: dict[str, Any] = {
    "kind": "texts",
    "split": "validation",
    "rows": 1400,
    "best": [
        {"row": 1234, "source": "sun and rain", "wanted": "sun", "given": "sun", "chrf": 100.0, "exact": True},
    ],
    "worst": [
        {"row": 3, "source": "a storm", "wanted": "storm", "given": "", "chrf": 0.0, "exact": False},
        {"row": 8, "source": "<b>hail</b> and more", "wanted": "hail", "given": "ha", "chrf": 41.25, "exact": False},
    ],
}

TABULAR: dict[str, Any] = {
    "importance": [
        {"column": "zip", "mean": -0.002, "deviation": 0.004},
        {"column": "age", "mean": 0.09, "deviation": 0.006},
    ],
    "trials": [
        {"number": 0, "value": 0.7, "seconds": 3.0, "state": "complete", "parameters": {"depth": 3, "rate": 0.1}},
        {"number": 1, "value": None, "seconds": 1.0, "state": "failed", "parameters": {"depth": 9}},
        {"number": 2, "value": 0.4, "seconds": 5.0, "state": "complete", "parameters": {"depth": 5, "rate": 0.01}},
        {"number": 3, "value": 0.3, "seconds": 2.0, "state": "pruned", "parameters": {"depth": 6, "rate": 0.2}},
    ],
    "objective": "log_loss",
    "cross_validation": {"accuracy": {"mean": 0.871, "deviation": 0.0043, "folds": [0.872, 0.87]}},
    "baseline": {"accuracy": 0.76, "log_loss": 0.2},
    "scores": {"accuracy": 0.874, "log_loss": 0.29},
    "columns": [{"column": "age", "kind": "number", "reason": "digits alone", "missing": 3, "values": 71}],
}

EVERY = {
    "classification": CLASSIFICATION,
    "multi_label": MULTI_LABEL,
    "regression": REGRESSION,
    "tags": TAGS,
    "texts": TEXTS,
    "tabular": TABULAR,
}


def source_of(folder: Path, details: Any) -> str:
    return write_html(write_run(folder, [], details=details)).read_text(encoding="utf-8")


def page_of(folder: Path, details: Any) -> Page:
    return Page(source_of(folder, details))


def classes(count: int) -> dict[str, Any]:
    """A model that is mostly right and takes each class for the next one now and then."""
    names = [f"class {i}" for i in range(count)]
    confusion = [
        [30 if i == j else 1 + i % 5 if j == (i + 1) % count else 0 for j in range(count)] for i in range(count)
    ]
    scores = [{"class": name, "precision": 0.9, "recall": 0.9, "f1": i / count, "support": 31}
              for i, name in enumerate(names)]  # fmt: skip
    return {"kind": "classification", "classes": names, "confusion": confusion, "per_class": scores}


def test_a_run_without_details_has_no_such_sections(tmp_path: Path) -> None:
    plain = Page(write_html(write_run(tmp_path / "run")).read_text(encoding="utf-8"))
    assert not {"predictions", "columns", "trials"} & set(plain.ids)


def test_classes_are_drawn_in_every_part(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", CLASSIFICATION)
    assert "Measured on validation, 42 rows." in page.text
    assert "true ↓ predicted → ham spam news ham 18 2 0 spam 5 10 1 news 0 0 6" in page.text
    assert "spam 0.714 0.833 0.625 16 ham 0.837 0.783 0.900 20 news – – 0.000 6" in page.text
    assert "off by 10.0% on average, mostly too sure" in page.text
    assert "Most often confused true predicted as count share of true spam ham 5 31%" in page.text
    assert "row 1,234 true spam , predicted ham at 99.3% row 7 true ham , predicted spam at 71.0%" in page.text
    assert "free lunch" in page.text


def test_every_shade_of_a_heat_map_is_also_said(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", CLASSIFICATION)
    cells = [a for t, a in page.tags if t == "td" and "--share" in (a.get("style") or "")]
    assert len(cells) == 6
    assert cells[0]["title"] == "18 of 20 ham (90%) predicted as ham"
    assert [a.get("class") for a in cells] == ["right", None, None, "right", None, "right"]


@pytest.mark.parametrize("count", [2, 8, 20, 77, 300])
def test_heat_maps_of_any_size(tmp_path: Path, count: int) -> None:
    source = source_of(tmp_path / "run", classes(count))
    page = Page(source)
    drawn = min(count, MAX_CLASSES)
    body = source.partition('<table class="heat')[2].partition("</table>")[0]
    assert body.count("<tr>") == drawn + 1
    assert body.count("<td") == drawn**2 + 1
    assert (">30</td>" in body) == (count <= 20)
    assert "30 of 3" in body
    assert ("Most often confused" in page.text) == (count > 2)
    assert ("The 100 of 300 with the most errors." in page.text) == (count > MAX_CLASSES)
    assert len(source) < 400_000


def test_most_confused_pairs_are_counted_where_they_are_not_written(tmp_path: Path) -> None:
    text = page_of(tmp_path / "run", classes(8)).text
    assert "share of true class 4 class 5 5 14%" in text


def test_sets_of_labels(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", MULTI_LABEL)
    assert "joy 0.615 0.800 0.500 8 0.350 4 · 4 · 1" in page.text
    assert "anger 1.000 1.000 1.000 2 – 2 · 0 · 0" in page.text
    assert "true joy, anger , predicted none at 20.0%" in page.text
    assert [a["title"] for t, a in page.tags if t == "i" and "title" in a] == [
        "4 found", "4 missed", "1 false alarm", "2 found",
    ]  # fmt: skip


def test_numbers_are_drawn_for_each_target(tmp_path: Path) -> None:
    source = source_of(tmp_path / "run", REGRESSION)
    text = Page(source).text
    assert "target MSE RMSE MAE R² pearson spearman mean std. deviation price 4 2 1.500 0.830 0.910" in text
    assert "days 1 1 1 – – –" in text
    assert text.count("Predicted against true") >= 2
    assert source.count('aria-labelledby="histogram-') == 1
    assert "1 rows off by 2 to 4" in text
    assert "row 9 price: true 20 , predicted 23 (3 too high) a castle" in text


def test_a_large_scatter_is_thinned_and_says_so(tmp_path: Path) -> None:
    details = {"kind": "regression", "targets": ["y"], "points": {"y": [[i / 7, i / 9] for i in range(20_000)]}}
    source = source_of(tmp_path / "run", details)
    assert len(source) < 200_000
    shown = re.findall(r"([\d,]+) of 20,000 rows", source)
    assert 0 < int(shown[0].replace(",", "")) <= MAX_DOTS


def test_tags_stand_under_their_words(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", TAGS)
    assert "PER 0.847 0.900 0.800 50" in page.text
    assert "row 5 Ann B-PER Lee true I-PER predicted O left" in page.text
    assert page.count("span", class_="differs") == 1
    assert "row 6 true PER: Ann , predicted none" in page.text


def test_written_texts_stand_beside_what_was_wanted(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", TEXTS)
    assert "Measured on validation, 1,400 rows." in page.text
    assert "Nearest to the target row source wanted written chrF 1,234 sun and rain sun sun ✓ 100" in page.text
    assert "3 a storm storm nothing 0" in page.text
    assert "8 <b>hail</b> and more hail ha 41.2" in page.text
    assert page.text.count("✓ is equal to the letter.") == 1


def test_what_tables_bring(tmp_path: Path) -> None:
    page = page_of(tmp_path / "run", TABULAR)
    assert "accuracy ✓ 0.874 0.760" in page.text
    assert "log loss 0.290 ✓ 0.200" in page.text
    assert "accuracy 0.871 ± 0.0043 0.872 0.870" in page.text
    assert "age 0.0900 ± 0.0060 zip -0.0020 ± 0.0040" in page.text
    assert "age number 3 71 digits alone" in page.text
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert [link for link in links if link in ("#predictions", "#columns", "#trials")] == [
        "#predictions", "#columns", "#trials",
    ]  # fmt: skip


def test_trials_that_ended_early_are_never_the_best(tmp_path: Path) -> None:
    text = page_of(tmp_path / "run", TABULAR).text
    assert "2 to their end, 1 failed, 1 pruned" in text
    assert "the best, number 2, reached 0.400" in text
    assert "The best 2 of 4 trial log loss time depth rate 2 0.400 5.0 s 5 0.01 0 0.700 3.0 s 3 0.1" in text


def test_many_parameters_share_a_column(tmp_path: Path) -> None:
    chosen = {f"p{i}": i for i in range(20)}
    text = page_of(tmp_path / "run", {"trials": [{"number": 1, "value": 0.5, "parameters": chosen}]}).text
    assert "trial objective time parameters 1 0.500 – p0 0, p1 1," in text


def test_only_the_most_important_columns_are_drawn(tmp_path: Path) -> None:
    listed = [{"column": f"column {i}", "mean": i, "deviation": 0} for i in range(50)]
    text = page_of(tmp_path / "run", {"importance": listed}).text
    assert f"The {MAX_IMPORTANT} most important of 50." in text
    assert "column 49" in text
    assert "column 19 " not in text


def leaves(tree: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a tree, inner ones too; of a list its first item."""
    keys = tree if isinstance(tree, dict) else range(min(len(tree), 1)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*path, key)
        yield from leaves(tree[key], *path, key)


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    found = copy.deepcopy(tree)
    node = found
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return found


@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("kind", EVERY)
def test_any_value_may_be_anything(tmp_path: Path, kind: str, strange: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_report_html.CONFIG", "train: {batch_size: 4}\n")
    page_of(tmp_path / "details", strange)
    for index, path in enumerate(leaves(EVERY[kind])):
        page = page_of(tmp_path / str(index), changed(EVERY[kind], path, strange))
        assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("kind", EVERY)
def test_a_part_without_its_key_is_left_out_and_nothing_else(tmp_path: Path, kind: str) -> None:
    whole = titles(source_of(tmp_path / "whole", EVERY[kind]))
    for key in EVERY[kind].keys() - {"kind"}:
        rest = {name: value for name, value in EVERY[kind].items() if name != key}
        found = titles(source_of(tmp_path / key, rest))
        assert found <= whole
        assert len(found) >= len(whole) - (5 if key == "targets" else 3), key


def titles(source: str) -> set[str]:
    """Titles of what is drawn below Predictions, Columns and Trials."""
    sections = re.findall(r'<section id="(?:predictions|columns|trials)">.*?</section>', source, re.DOTALL)
    return {title for part in sections for title in re.findall(r'<(?:h3|strong class="title")>([^<]*)<', part)}


def test_a_matrix_that_does_not_fit_its_classes_is_not_drawn(tmp_path: Path) -> None:
    for index, confusion in enumerate([[[1, 2], [3, 4]], [[1, 2, 3]] * 2, [[1, 2, -3]] * 3, [[1, 2, None]] * 3]):
        source = source_of(tmp_path / str(index), {**CLASSIFICATION, "confusion": confusion})
        assert '<table class="heat' not in source


def hostile(tree: Any) -> Any:
    """Every text of a tree replaced, names of mappings under `points` and the like too."""
    if isinstance(tree, dict):
        return {key: value if key == "kind" else hostile(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [hostile(item) for item in tree]
    return HOSTILE if isinstance(tree, str) else tree


@pytest.mark.parametrize("kind", EVERY)
def test_nothing_in_the_details_becomes_markup(tmp_path: Path, kind: str) -> None:
    details = hostile(EVERY[kind])
    for key in ("points", "residuals", "cross_validation", "baseline", "scores"):
        if key in details:
            details[key] = {HOSTILE: next(iter(details[key].values()))}
    for trial in details.get("trials", ()):
        trial["state"], trial["parameters"] = "complete", {HOSTILE: HOSTILE}
    page = page_of(tmp_path / "run", details)
    assert page.count("script") == 1
    assert page.count("img") == 0
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert "</script><script>alert(1)</script>" in page.text


def test_a_class_named_like_a_tag_is_shown(tmp_path: Path) -> None:
    names = ["<script>", "spam", "news"]
    page = page_of(tmp_path / "run", {**CLASSIFICATION, "classes": names})
    assert "true ↓ predicted → <script> spam news <script> 18 2 0" in page.text
    assert page.count("script") == 1


@pytest.mark.parametrize("kind", EVERY)
def test_pictures_need_no_network_and_say_what_they_show(tmp_path: Path, kind: str) -> None:
    source = source_of(tmp_path / "run", EVERY[kind])
    page = Page(source)
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\(", source)
    assert not any({"src", "srcset", "action", "data"} & set(attributes) for _, attributes in page.tags)
    assert len(page.ids) == len(set(page.ids))
    for attributes in (attributes for tag, attributes in page.tags if tag == "svg"):
        assert set((attributes["aria-labelledby"] or "").split()) <= set(page.ids)


def test_counts_stand_out_from_their_shade_in_light_and_dark() -> None:
    inks = re.findall(r"--ink: (#[0-9a-f]+); --soft", STYLE)
    shades = re.findall(r"--heat: (#[0-9a-f]+); --heat-wrong: (#[0-9a-f]+)", STYLE)
    assert len(shades) == 2
    for ink, pair in zip(inks, shades, strict=False):
        assert min(contrast(ink, shade) for shade in pair) >= 4.5


def test_details_are_read_as_written(tmp_path: Path) -> None:
    """NaN in a file that some other program wrote is no number."""
    folder = write_run(tmp_path / "run", [])
    report = json.loads((folder / "report.json").read_text())
    report["details"] = {**CLASSIFICATION, "calibration": [{"confidence": float("nan"), "accuracy": 1.0, "count": 3}]}
    (folder / "report.json").write_text(json.dumps(report))
    assert "justified" not in write_html(folder).read_text(encoding="utf-8")
