"""The report: what it says, that it stands alone, that names cannot do harm, and how it looks in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import browser
import synthetic_run
from kinfolk import report
from kinfolk.exceptions import InputError

MAKERS = {
    "three": synthetic_run.regression_run,
    "mixed": synthetic_run.mixed_run,
    "many": lambda: synthetic_run.mixed_run(139),
    "single": synthetic_run.single_run,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders with their reports."""
    root = tmp_path_factory.mktemp("runs")
    folders = {name: synthetic_run.write(make(), root / name) for name, make in MAKERS.items()}
    for folder in folders.values():
        assert report.write(folder) == folder / "report.html"
    return folders


class Page(HTMLParser):
    """The elements of a page and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MAKERS)
def test_the_page_stands_alone(runs: dict[str, Path], name: str) -> None:
    for tag, attributes in page(runs[name]).elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "i")
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "action", "data"):
                assert (value or "").startswith(("#", "data:image/png;base64,"))
            assert not re.search(r"url\((?!#)", value or "")
    assert (runs[name] / "report.html").stat().st_size < 3_000_000


@pytest.mark.parametrize("name", MAKERS)
def test_the_page_can_be_read_by_all(runs: dict[str, Path], name: str) -> None:
    elements = page(runs[name]).elements
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("scope") in ("row", "col") for tag, a in elements if tag == "th")
    assert all(a.get("role") == "img" and a.get("aria-label") for tag, a in elements if tag == "svg")
    assert ("html", {"lang": "en"}) in elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for tag, a in elements if tag == "a"} <= set(ids)


@pytest.mark.parametrize("name", MAKERS)
def test_every_task_is_in_the_table(runs: dict[str, Path], name: str) -> None:
    tasks = json.loads((runs[name] / "verdict.json").read_text(encoding="utf-8"))["tasks"]
    text = page(runs[name]).text
    assert all(" ".join(task.split()) in text for task in tasks)


def test_what_the_verdict_says(runs: dict[str, Path]) -> None:
    text = page(runs["three"]).text
    assert "Yes, on average Over all tasks, sharing lowers the error by 7.00 %, interval [4.00, 10.0]." in text
    assert "1 helped and 1 hurt of 3 Sharing helps G1 and hurts G3; no clear difference for G2." in text
    assert "Use the hand-over On every task its error is at most that of single-task learning." in text
    assert text.index("Does sharing help?") < text.index("How large the differences are") < text.index("Repeat it")
    assert "kinfolk fit 'student-por.csv' --target G1" in text
    assert "Before you rely on this" not in text


def test_what_went_wrong_stands_before_the_table(runs: dict[str, Path]) -> None:
    text = page(runs["mixed"]).text
    table = text.index("The verdict, task by task")
    for told in (
        "the loss became NaN",
        "extra_trees on 2 of 5 outer splits",
        "Class 'violet'",
        "5 of 5 splits are left out",
    ):
        assert text.index(told) < table


def test_one_target_has_nothing_to_share(runs: dict[str, Path]) -> None:
    text = page(runs["single"]).text
    assert "Nothing to share There is one task: nothing to share." in text
    assert "Which tasks?" not in text


def test_an_empty_history_leaves_the_section_out(runs: dict[str, Path]) -> None:
    assert "How the networks learned" in page(runs["three"]).text
    assert "How the networks learned" not in page(runs["mixed"]).text
    assert "Task weights" in page(runs["three"]).text


def test_what_was_learned_is_drawn(runs: dict[str, Path]) -> None:
    found = page(runs["three"])
    assert "stitch after stage 1 , from −0.182 to 1.04" in found.text
    told = [a["aria-label"] or "" for tag, a in found.elements if tag == "svg" and "learned by" in str(a)]
    assert all("at the end: " in label.lower() for label in told)
    assert sum("against the update" in label for label in told) == len(told) / 2
    assert any(
        label.startswith(f"gates, learned by {synthetic_run.WEIGHTED}, at the end: G1, expert 0:") for label in told
    )
    assert "Parts that are no task" in found.text
    assert "shown are the first 40 x 40 of 139 x 139" in page(runs["many"]).text


def test_a_run_of_before_has_learned_nothing(tmp_path: Path) -> None:
    synthetic_run.write(synthetic_run.regression_run(), tmp_path)
    (tmp_path / "learned.parquet").unlink()
    report.write(tmp_path)
    assert "What was learned" not in page(tmp_path).text


def test_the_verdict_alone_is_enough(tmp_path: Path) -> None:
    synthetic_run.write(synthetic_run.mixed_run(), tmp_path)
    for place in tmp_path.glob("*.parquet"):
        place.unlink()
    report.write(tmp_path)
    assert "How large the differences are" in page(tmp_path).text


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """A verdict made in Python may say nothing about data, plan, command and costs."""
    run = synthetic_run.regression_run()
    empty = {"data": {}, "plan": {}, "versions": {}, "seed": None, "threads": None, "command": "", "seconds": None}
    run["verdict"] |= empty
    run["verdict"]["overall"]["costs"] = {}
    run["verdict"]["tasks"]["G2"] |= {"baseline_beaten": False, "blend": {}, "scores": {}}
    synthetic_run.write(run, tmp_path)
    report.write(tmp_path)
    text = page(tmp_path).text
    assert "not better than the mean" in text
    assert "What each arm costs" not in text
    assert "None" not in text.replace("None clearly", "")


def test_the_report_is_the_same_every_time(runs: dict[str, Path]) -> None:
    before = (runs["three"] / "report.html").read_bytes()
    report.write(runs["three"])
    assert (runs["three"] / "report.html").read_bytes() == before


def test_a_folder_without_a_verdict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"verdict\.json"):
        report.write(tmp_path)
    (tmp_path / "verdict.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(InputError, match="format 1"):
        report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def verdict(mean: float | None, interval: list[float | None], words: list[str]) -> dict[str, Any]:
    tasks = {f"task {at}": {"verdict": word, "splits": 5, "splits_left_out": 0} for at, word in enumerate(words)}
    return {"tasks": tasks, "overall": {"delta_m_percent": mean, "interval": interval, "recommendation": "Use it."}}


@pytest.mark.parametrize(
    ("mean", "interval", "words", "short", "told"),
    [
        (3.0, [1.0, 5.0], ["helped", "helped"], "Yes", "lowers the error by 3.00 %, interval [1.00, 5.00]."),
        (-3.0, [-5.0, -1.0], ["hurt", "hurt"], "No, it harms", "raises the error by 3.00 %, interval [1.00, 5.00]."),
        (1.0, [-1.0, 3.0], ["helped", "hurt"], "For some tasks", "That includes zero."),
        (1.0, [-1.0, 3.0], ["no clear difference"] * 2, "Not clearly", "That includes zero."),
        (1.0, [None, None], ["not judged"] * 2, "Not judged", "could not be judged."),
        (None, [None, None], ["not judged"] * 2, "Not judged", "was not judged"),
        (None, [None, None], ["nothing to share"], "Nothing to share", "There is one task"),
    ],
)
def test_does_sharing_help(
    mean: float | None, interval: list[float | None], words: list[str], short: str, told: str
) -> None:
    question, lead, text = report.answers(verdict(mean, interval, words))[0]
    assert question == "Does sharing help?"
    assert lead == short
    assert told in text


# --- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    if browser.find() is None:
        pytest.skip("there is no Chromium on PATH")
    with browser.Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 390, 1200])
@pytest.mark.parametrize("name", MAKERS)
def test_in_a_browser(runs: dict[str, Path], chromium: browser.Browser, name: str, width: int, dark: bool) -> None:
    chromium.open(runs[name] / "report.html", width=width, dark=dark, phone=width < 500)
    assert chromium.evaluate("window.innerWidth") == width
    assert chromium.evaluate("document.scrollingElement.scrollWidth") <= width
    assert chromium.evaluate("document.querySelectorAll('svg').length") > 3
    seen = chromium.evaluate("document.body.innerText")
    assert "Does sharing help?" in seen
    assert "The verdict, task by task" in seen
    assert chromium.evaluate("document.title").endswith("does it help to learn these tasks together?")
    assert chromium.requests() == []
    assert chromium.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_verdict_has_contrast(runs: dict[str, Path], chromium: browser.Browser, dark: bool) -> None:
    """Text and its ground differ by at least 4.5 to 1 (WCAG 2.1, AA) in everything that the page colours."""
    chromium.open(runs["mixed"] / "report.html", dark=dark)
    pairs = chromium.evaluate("""[...document.querySelectorAll('.pill, .soft, small, dt, dd, th, a')].map(e => {
        let ground = e;
        while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
        return [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor];
    })""")
    assert len(pairs) > 50
    for pair in {tuple(pair) for pair in pairs}:
        light, dim = sorted((luminance(colour) for colour in pair), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= 4.5, pair


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``, WCAG 2.1."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_it_prints(runs: dict[str, Path], chromium: browser.Browser, tmp_path: Path) -> None:
    chromium.open(runs["three"] / "report.html")
    chromium.print(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
