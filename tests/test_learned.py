"""Figures of what was learned: which setting, which values, and odd tables."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from kinfolk import learned, panels, plots


def rows(values: dict[int, list[list[float]]], setting: str = "one", arm: str = "stitched") -> pd.DataFrame:
    """A quantity of lines a, b ... and columns A, B ..., as it was after some updates."""
    made = [
        {"arm": arm, "setting": setting, "update": update, "quantity": "q"}
        | {"line": "ba"[i] if i < 2 else f"l{i}", "column": f"C{j}", "value": value}
        for update, table in values.items()
        for i, line in enumerate(table)
        for j, value in enumerate(line)
    ]
    return pd.DataFrame(made)


def test_the_setting_with_the_lowest_loss_is_taken() -> None:
    frame = pd.concat([rows({1: [[1.0]]}, "one"), rows({1: [[2.0]]}, "two"), rows({1: [[3.0]]}, "three")])
    losses = [("one", "x", 0.5), ("one", "y", 0.5), ("two", "x", 0.1), ("two", "x", 2.0), ("two", "y", 0.6)]
    history = pd.DataFrame(losses, columns=["setting", "task", "stop_loss"]).assign(arm="stitched")
    lost = history.assign(setting="three", stop_loss=math.nan)
    assert list(learned.best(frame, pd.concat([history, lost]))["stitched"]["value"]) == [2.0]
    assert list(learned.best(frame, None)["stitched"]["value"]) == [1.0]


def test_the_last_values_in_the_order_of_lines_and_columns() -> None:
    first = rows({1: [[1.0, 2.0], [3.0, 4.0]], 2: [[5.0, 6.0], [7.0, 8.0]]})
    ended = rows({1: [[0.0], [0.0], [9.0]]}).iloc[2:]  # a part that has ended before the others
    table = learned.final(pd.concat([ended, first]).sample(frac=1, random_state=0).sort_values(["line", "column"]))
    assert table.loc["b", "C1"] == 6.0
    assert table.loc["l2", "C0"] == 9.0
    assert math.isnan(table.loc["l2", "C1"])
    assert list(learned.final(first).index) == ["b", "a"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (3, 3), (7, 12), (40, 3), (3, 40), (40, 40)])
@pytest.mark.parametrize("scale", [0.0, 1.0, -1e6, 1e-9])
def test_tables_of_all_sizes(shape: tuple[int, int], scale: float) -> None:
    table = pd.DataFrame(scale * np.random.default_rng(0).normal(size=shape))
    figure = learned.heat(table.set_axis([f"task ${i}" for i in table.index]))
    text = "".join(ElementTree.fromstring(plots.svg(figure, "odd")).itertext())
    assert f"task ${shape[0] - 1}" in text


def test_what_fits_on_a_phone_does() -> None:
    """Beyond a dozen columns letters stay as large, and the figure grows."""
    names = ["a name of any length"] * 12
    assert learned.heat(pd.DataFrame(np.eye(12), names, names)).get_figwidth() * 96 < 343
    assert 500 < learned.heat(pd.DataFrame(np.eye(40))).get_figwidth() * 96 < 800


def test_a_small_quantity_has_a_line_for_each_number() -> None:
    figure = learned.lines(rows({0: [[1.0, 2.0], [3.0, 4.0]], 10: [[5.0, 6.0], [7.0, 8.0]]}))
    assert [line.get_label() for line in figure.axes[0].lines] == ["b, C0", "b, C1", "a, C0", "a, C1"]
    assert np.asarray(figure.axes[0].lines[1].get_ydata()).tolist() == [2.0, 6.0]
    single = learned.lines(rows({0: [[1.0, 2.0]], 10: [[5.0, 6.0]]}))
    assert [line.get_label() for line in single.axes[0].lines] == ["C0", "C1"]


def test_what_is_not_known_is_not_drawn() -> None:
    assert panels.learned([], None, None) == {}
    assert panels.learned([], rows({1: [[math.nan]]}), None) == {}
    ((count, (one,)),) = panels.learned(["a", "b", "C0"], rows({1: [[math.nan], [2.0]]}), None).values()
    assert count == 1
    assert one.note == "2.00 everywhere"
    assert not one.lines
    assert not one.parts


def test_only_the_first_of_many_quantities_are_drawn() -> None:
    frame = pd.concat([rows({1: [[1.0]]}).assign(quantity=f"gates of {i}") for i in range(panels.PANELS + 3)])
    ((count, drawn),) = panels.learned([], frame, None).values()
    assert (count, len(drawn)) == (panels.PANELS + 3, panels.PANELS)
    assert not drawn[0].parts  # a single line is no part
