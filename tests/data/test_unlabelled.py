"""Rows without labels from a table of their own: what they must have, what they may lack, what is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kinfolk.data.tables import Roles, Table, make_table
from kinfolk.data.unlabelled import with_unlabelled
from kinfolk.exceptions import InputError

ROLES = Roles(("y:regression",), auxiliary=("help",))


def frame(rows: int = 12, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    made = pd.DataFrame({"x": random.normal(size=rows), "n": random.integers(0, 90, rows)})
    made["colour"] = random.choice(["red", "blue"], rows)
    made["sure"] = random.random(rows) < 0.5
    made["y"], made["help"] = random.normal(size=rows), random.normal(size=rows)
    return made


def joined(below: pd.DataFrame, above: pd.DataFrame | None = None, roles: Roles = ROLES) -> Table:
    above = frame() if above is None else above
    return with_unlabelled(make_table(above, roles), below, roles, [above])


def test_rows_come_below_without_labels_and_the_rows_above_are_as_they_were():
    made, alone = joined(frame(5, seed=1)), make_table(frame(), ROLES)
    assert (len(made.features), made.added) == (17, 5)
    assert np.isnan(made.labels[12:]).all()
    assert np.array_equal(made.labels[:12], alone.labels)
    assert made.features["colour"].tolist() == [*frame()["colour"], *frame(5, seed=1)["colour"]]
    assert made.features["n"].tolist() == [*frame()["n"], *frame(5, seed=1)["n"]]
    assert made.tasks == alone.tasks


def test_other_columns_may_lack_and_labels_are_not_read():
    (note,) = joined(frame(5, seed=1)).warnings
    assert note == "The unlabelled table: labels in it are not read ('y', 'help')."
    assert joined(frame(5, seed=1).drop(columns=["y", "help"])).warnings == ()
    assert joined(frame(5, seed=1).assign(y=np.nan, help=None, more="?")).warnings == ()


def test_feature_columns_that_lack_are_named():
    with pytest.raises(InputError, match="It lacks 'colour', 'sure'") as told:
        joined(frame(5, seed=1).drop(columns=["sure"]).rename(columns={"colour": "color"}))
    assert "'color'" in str(told.value)
    joined(frame(5, seed=1).drop(columns="n"), frame().assign(n=3))  # which says nothing above, and is no feature


@pytest.mark.parametrize(
    ("below", "what"),
    [
        (frame(5, seed=1).assign(x="abc"), "'x' must hold numbers, as in the table"),
        (frame(0), "must have rows"),
        (pd.DataFrame(), "must have rows"),
        (frame(), "must have rows that the table has not"),
        (frame().iloc[::-1], "must have rows that the table has not"),
    ],
)
def test_nonsense_is_refused(below: pd.DataFrame, what: str):
    with pytest.raises(InputError, match=what):
        joined(below)


def test_rows_of_the_table_are_left_out_those_that_judge_too():
    roles = Roles(("y",), ignore=("help",))
    test = frame(14, seed=2)
    made = make_table(frame(), roles, test)
    found = with_unlabelled(made, pd.concat([frame(3, seed=1), test, frame()]), roles, [frame(), test])
    assert found.added == 3
    assert found.test is not None
    assert found.test.sum() == 14
    assert "26 of 29 rows are in the table too" in found.warnings[-2]


def test_cells_have_the_type_that_they_have_above():
    below = frame(4, seed=1).drop(columns=["y", "help"])
    below = below.assign(colour=[1, 2, 3, 4], sure=[1, 0, None, 1], x=[np.inf, 1, 2, "3"], n=None)
    made = joined(below)
    assert made.features["colour"].tolist()[12:] == ["1", "2", "3", "4"]
    assert made.features["sure"].tolist()[12:14] == [1, 0]
    assert made.features["x"].tolist()[13:] == [1, 2, 3]
    assert made.features[["x", "n"]].iloc[12].isna().all()
    (note,) = made.warnings
    assert "'x' is infinite in 1 cells" in note


def test_weights_and_groups_of_rows_below():
    roles = Roles(("y",), ignore=("help",), weight="w", group="who")
    above = frame().assign(w=[2.0, 4.0] * 6, who=np.arange(12) // 3)
    below = frame(4, seed=1)
    made = joined(below.assign(w=[1, 2, 3, 4], who=[3.0, 7, 7, None]), above, roles)
    assert made.weight.tolist()[12:] == [1, 2, 3, 4]
    assert made.groups is not None
    assert made.groups.tolist()[:13] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert made.groups[13] == made.groups[14]
    assert len({*made.groups.tolist()}) == 6
    lacking = joined(below, above, roles)
    assert lacking.weight.tolist()[12:] == [3.0] * 4
    assert lacking.groups is not None
    assert len({*lacking.groups.tolist()}) == 8
    assert any("no group column 'who'" in note for note in lacking.warnings)
