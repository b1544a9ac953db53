"""Figures: safe names, the same characters every time, nothing from elsewhere, and odd numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import synthetic_run
from kinfolk import drawing, plots

RUN = synthetic_run.mixed_run(6)
TASKS: dict[str, Any] = RUN["verdict"]["tasks"]
ARMS = plots.marks(synthetic_run.ROLES)
HISTORY = synthetic_run.regression_run()["history"]
RANDOM = np.random.default_rng(3)
CHANCE = RANDOM.random(200)

FIGURES: dict[str, Callable[[], Figure]] = {
    "differences": lambda: plots.differences(TASKS, plots.split_differences(RUN["comparison"])),
    "errors": lambda: plots.errors(TASKS, ARMS),
    "predicted": lambda: plots.predicted(CHANCE, CHANCE**2),
    "predicted, rasterised": lambda: plots.predicted(RANDOM.random(3000) * 0 + np.arange(3000), np.arange(3000.0)),
    "calibration": lambda: plots.calibration((CHANCE > 0.4).astype(float), CHANCE),
    "confusion": lambda: plots.confusion(np.arange(200.0) % 3, np.eye(3)[np.arange(200) % 3], ["a", "$b$", "<c>"]),
    "learning": lambda: plots.learning(HISTORY[HISTORY["task"] == "G1"], ARMS),
    "weights": lambda: plots.learning(HISTORY[HISTORY["task"] == "G1"], ARMS, "weight"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_svg_stands_inside_a_page_and_is_the_same_every_time(name: str) -> None:
    text = plots.svg(FIGURES[name](), name)
    assert text == plots.svg(FIGURES[name](), name)
    assert "http" not in text.replace("data:image", "")
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == name
    assert not list(root.iter("style"))
    assert not list(root.iter("script"))
    assert "currentColor" in text
    assert drawing.INK not in text


def test_names_in_one_page_do_not_clash() -> None:
    ids = [
        {e.attrib["id"] for e in ElementTree.fromstring(plots.svg(make(), name)).iter() if "id" in e.attrib}
        for name, make in FIGURES.items()
    ]
    assert sum(map(len, ids)) == len(set().union(*ids))


def shown(figure: Figure) -> str:
    return " ".join(ElementTree.fromstring(plots.svg(figure, "names")).itertext())


def test_names_are_shown_as_they_are() -> None:
    text = shown(plots.differences(TASKS))
    assert "cost ($) and gain" in text
    assert "<script>document.…" in text
    assert "温度 (次日)" in text


@given(st.text(max_size=30))
def test_no_name_breaks_a_figure(name: str) -> None:
    entry = {"single_task": 1.0, "difference": 0.1, "interval": [0.0, 0.2], "verdict": "helped"}
    assert "sharing better" in shown(plots.differences({name: entry}))


@given(st.text(max_size=40), st.integers(2, 20))
def test_a_label_is_one_short_line_without_mathtext(name: str, width: int) -> None:
    text = plots.label(name, width)
    assert len(text.replace(r"\$", "$")) <= width
    assert text.isprintable()
    assert text.count("$") == text.count(r"\$")


def test_style_ignores_the_users_settings() -> None:
    import matplotlib

    plain = plots.svg(FIGURES["predicted"](), "same")
    with matplotlib.rc_context({"axes.grid": True, "text.usetex": True, "font.size": 20, "svg.fonttype": "path"}):
        assert plots.svg(FIGURES["predicted"](), "same") == plain


def test_marks_differ_between_arms() -> None:
    assert len(set(ARMS.values())) == len(ARMS)
    assert ARMS[synthetic_run.SINGLE].line != ARMS[synthetic_run.HARD].line


def test_percent_is_relative_to_single_task() -> None:
    assert plots.percent({"single_task": 0.5, "difference": 0.1}, "difference") == pytest.approx([20.0])
    for entry in (
        {"single_task": None, "interval": [0, 1]},
        {"single_task": 0.0, "interval": [0, 1]},
        {"interval": None},
    ):
        assert all(map(math.isnan, plots.percent(entry, "interval")))


def test_split_differences_average_to_the_difference() -> None:
    rows = [("single-task", 0, 1.0), ("single-task", 1, 3.0), ("sharing", 0, 0.5), ("sharing", 1, 2.5)]
    frame = pd.DataFrame(rows, columns=["arm", "fold", "error"]).assign(role="procedure", repeat=0, task="a")
    assert plots.split_differences(frame) == {"a": [25.0, 25.0]}
    assert plots.split_differences(frame.iloc[2:]) == {}
    assert plots.split_differences(None) == {}


def test_one_wide_interval_does_not_hide_the_others() -> None:
    usual = {"single_task": 1.0, "difference": 0.02, "interval": [0.01, 0.03], "verdict": "helped"}
    wide = usual | {"interval": [-50.0, 50.0], "verdict": "no clear difference"}
    axes = plots.differences({"a": usual, "b": usual, "c": usual, "d": wide}).axes[0]
    low, high = axes.get_xlim()
    assert low < 0 < 3 < high < 100


@pytest.mark.parametrize("value", [None, math.nan])
def test_tasks_that_were_not_judged_are_drawn_empty(value: float | None) -> None:
    entry = {"single_task": value, "difference": value, "interval": [value, value], "hand_over": value, "arms": {}}
    assert "a" in shown(plots.differences({"a": entry})).split()
    assert "a" in shown(plots.errors({"a": entry}, ARMS)).split()


def test_the_best_setting_is_drawn_and_a_lost_one_is_not() -> None:
    rows = [("a", "1", 0, 2.0), ("a", "1", 1, 1.0), ("a", "2", 0, 0.5), ("b", "1", 0, math.nan)]
    history = pd.DataFrame(rows, columns=["arm", "setting", "update", "stop_loss"])
    found = plots.best_settings(history)
    assert list(found) == ["a"]
    assert list(found["a"]["setting"]) == ["2"]
    assert plots.learning(history.iloc[3:], {}).axes


def test_only_moving_weights_are_kept() -> None:
    moving = plots.moving(HISTORY)
    assert moving is not None
    assert set(moving["arm"]) == {synthetic_run.LOSS_FORM, synthetic_run.WEIGHTED}
    assert plots.moving(HISTORY.iloc[:0]) is None


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_few_rows_and_constant_predictions(rows: int) -> None:
    target, same = np.arange(rows) % 2 * 1.0, np.full(rows, 0.5)
    for figure in (plots.predicted(target, same), plots.calibration(target, same), plots.predicted(same, same)):
        assert plots.svg(figure, "few")
    assert plots.svg(plots.confusion(target, np.tile([0.5, 0.5], (rows, 1)), ["no", "yes"]), "few")


def test_many_classes_become_others() -> None:
    target = np.repeat(np.arange(30.0), np.arange(30, 0, -1))
    figure = plots.confusion(target, np.eye(30)[target.astype(int)], [f"class {at}" for at in range(30)])
    text = shown(figure)
    assert "class 7" in text
    assert "class 8" not in text
    assert "others" in text


def test_many_points_are_thinned_and_the_extremes_stay() -> None:
    target = RANDOM.normal(size=50_000)
    points = np.asarray(plots.predicted(target, target, most=500).axes[0].collections[0].get_offsets())
    assert len(points) == 500
    assert points.min() == target.min()
    assert points.max() == target.max()
