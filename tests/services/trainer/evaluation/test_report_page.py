"""The report page: self-contained, escaped, deterministic, and true to the report."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from planted_models import RUN, TRAIN, PlantedModel, collapsed, good, judged

from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.models import Report
from tunesmith.domain.parity import not_checked
from tunesmith.recipes.micro_genre import STOP
from tunesmith_trainer.evaluation.charts import Series, bar_chart, column_chart, line_chart, ticks
from tunesmith_trainer.evaluation.checked_page import with_check
from tunesmith_trainer.evaluation.page import render_page

HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)>"

DATASET = Dataset(
    id="ds-1",
    recipe="micro_genre",
    shards={"train": "datasets/micro_genre/ds-1/train.jsonl"},
    shard_hashes={"train": "ab" * 32},
    num_examples={"train": 900, "test": 150},
    num_records=1060,
    dropped={"duplicate": 7, HOSTILE: 3},
    distributions={},
    settings=CurationSettings().to_json(),
    collections=(f"col-{HOSTILE}",),
    licences={"CC0-1.0": 1060},
    created_at="2026-11-21T09:00:00.000000Z",
)
METRICS = [
    {"step": 1, "train_loss": 3.0, "validation_loss": None, "learning_rate": 0.01},
    {"step": 2, "train_loss": 2.0, "validation_loss": None, "learning_rate": 0.02},
    {"step": 2, "train_loss": None, "validation_loss": 2.1, "learning_rate": 0.02},
    {"step": 3, "train_loss": float("nan"), "learning_rate": 0.01},
]
VOID = {"meta", "link"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(report: Report, **changes: object) -> str:
    arguments = {"dataset": DATASET, "run": RUN, "metric_rows": METRICS, "train_answers": TRAIN}
    return render_page(report, **(arguments | changes)).decode()


@pytest.fixture(scope="module")
def report() -> Report:
    answers = [f"{HOSTILE}{STOP}", f"{TRAIN[3]}{STOP}", f"{TRAIN[4].replace(' ', '-')}{STOP}", f"a | b{STOP}", "cut"]
    return judged(PlantedModel(lambda n, _: answers[n % len(answers)], 0.1), champion=good())


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return rendered(report)


def test_nothing_on_the_page_leads_outside(html: str) -> None:
    page = Page(html)

    linked = [value for name, value in page.attributes if name in ("src", "href", "action", "srcset", "xlink:href")]
    assert linked == ["data:,"]
    assert not re.search(r"url\(|@import", html)
    assert "script" not in page.tags
    assert not {"img", "iframe", "object", "form", "a"} & set(page.tags)


def test_hostile_text_is_text(html: str) -> None:
    page = Page(html)

    assert "<script>" not in html
    assert page.text.count(HOSTILE) > 10
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]


def test_the_policy_allows_the_pages_own_style_and_nothing_else(html: str) -> None:
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    policies = [value for name, value in Page(html).attributes if name == "content" and "-src" in value]

    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    ]


def test_the_same_report_gives_the_same_bytes(report: Report, html: str) -> None:
    assert rendered(report) == html


def test_every_gate_is_told_with_its_detail(report: Report, html: str) -> None:
    text = Page(html).text

    assert all(gate.detail in text for gate in report.gates)
    assert text.count("✗ failed") == sum(not gate.passed for gate in report.gates)
    assert "Refused: " in text


def test_a_report_that_passed_says_so() -> None:
    text = Page(rendered(judged(good()))).text

    assert "Passed all 9 gates" in text
    assert "there was no champion yet" in text


def test_samples_stand_side_by_side_with_what_is_wrong_with_them(html: str) -> None:
    text = " ".join(Page(html).text.split())

    assert f"{TRAIN[3]} known" in text
    assert f"{TRAIN[4].replace(' ', '-')} near-twin of {TRAIN[4]}" in text
    assert f"a | b{STOP} bad format" in text
    assert "cut cut off" in text
    assert "0->" in text


def test_lineage_names_ids_hashes_drops_and_licences(html: str) -> None:
    text = Page(html).text

    for fact in ("mv-1", "run-1", "ds-1", "ab" * 32, "builtin:tiny@1234", "duplicate", "CC0-1.0", "1,060"):
        assert fact in text


def test_a_page_can_be_made_of_very_little() -> None:
    bare = replace(judged(collapsed()), metrics={"base": {}, "candidate": {}}, samples={}, distributions={}, gates=())

    page = Page(rendered(bare, metric_rows=[], train_answers=[], run=replace(RUN, validation_loss=None)))

    assert "Refused" in page.text
    assert "no gates" in page.text


def test_text_that_is_not_unicode_does_not_stop_the_page(report: Report) -> None:
    broken = replace(report, samples={"candidate": ("lone \ud800 surrogate \x00",)})

    assert "lone ? surrogate" in Page(rendered(broken)).text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.9, 4.1, [1, 2, 3, 4]), (3, 3, [3]), (0, 320, [0, 100, 200, 300])],
)
def test_ticks_are_round_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_charts_of_nothing_are_nothing() -> None:
    assert line_chart([Series("a", "base", [])], x_title="", y_title="") == ""
    assert column_chart([], {}) == ""
    assert bar_chart(["a"], {"base": [0.0]}) == ""


def test_charts_escape_their_labels() -> None:
    bars = bar_chart(["<b>&"], {"base": [0.5]})
    columns = column_chart(["<b>&-9"], {"base": [0.5]})
    lines = line_chart([Series("<b>&", "base", [(0, 1), (1, 2)], marked=True)], x_title="<b>&", y_title="")

    for chart in (bars, columns, lines):
        assert "<b>" not in chart
        assert chart.count("&lt;b&gt;&amp;") >= 2


def test_what_is_found_later_about_serving_has_its_place(html: str) -> None:
    found = not_checked("mv-1", why=HOSTILE, at="2026-11-21T10:00:00.000000Z")

    shown = Page(with_check(html.encode(), found).decode())

    assert f"Served = judged: not checked: {HOSTILE}." in shown.text
    assert with_check(html.encode(), None).decode() == html
