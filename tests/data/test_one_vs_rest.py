"""A target may become a task for each class: labels, names, errors, rare classes, classes of test rows alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kinfolk.data.splits import rare_classes
from kinfolk.data.tables import Roles, Table, make_table
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError

AT = np.arange(12)


def table(*targets: str, test: pd.DataFrame | None = None, **roles: object) -> Table:
    return make_table(frame(), Roles(targets, **roles), test)  # type: ignore[arg-type]


def frame(rows: np.ndarray = AT) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": rows**2 / 7,
            "digit": np.where(rows == 5, np.nan, rows % 3),
            "colour": np.array(["red", "blue", "green"])[rows % 3],
            "price": rows * 1.5,
            "passes": np.array(["yes", "no"])[rows % 2],
        }
    )


def test_a_task_for_each_class_and_none_of_a_missing_label() -> None:
    made = table("price", "digit:one_vs_rest", auxiliary=("colour:one_vs_rest",))
    assert [task.name for task in made.tasks] == [
        "price", "digit=0", "digit=1", "digit=2", "colour=blue", "colour=green", "colour=red",
    ]  # fmt: skip
    assert made.tasks[2] == Task("digit=1", "binary", ("not 1", 1), target="digit")
    assert [task.column for task in made.tasks[:2]] == ["price", "digit"]
    assert [task.main for task in made.tasks] == [True] * 4 + [False] * 3
    expected = np.where((AT == 5)[:, None], np.nan, AT[:, None] % 3 == np.arange(3))
    np.testing.assert_array_equal(made.labels[:, 1:4], expected)
    assert set(made.features) == {"size", "passes"}


def test_an_error_is_that_of_all_its_tasks_or_of_one() -> None:
    errors = {"digit": "brier", "digit=2": "auc", "price": "mae"}
    made = table("price", "digit:one_vs_rest", errors=errors)
    assert [task.error for task in made.tasks] == ["mae", "brier", "brier", "1-auc"]


@pytest.mark.parametrize(
    ("targets", "errors", "says"),
    [
        (("passes:one_vs_rest",), {}, "more than two classes.*passes:binary"),
        (("digit:one_vs_rst",), {}, "Did you mean 'one_vs_rest'"),
        (("digit:one_vs_rest",), {"digit": "mae"}, "'digit=0' must judge a binary task"),
        (("digit:one_vs_rest",), {"digit=7": "auc"}, "Unknown target of an error 'digit=7'"),
        (("digit:one_vs_rest", "digit"), {}, "both target and target"),
    ],
)
def test_what_cannot_be(targets: tuple[str, ...], errors: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        table(*targets, errors=errors)


def test_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="'digit=1'; rename"):
        make_table(frame().assign(**{"digit=1": AT}), Roles(("digit:one_vs_rest", "digit=1")))


def test_a_class_that_only_test_rows_have_is_no_task() -> None:
    test = frame()[:6].assign(digit=[0, 1, 2, 7, 7, 0])
    made = table("digit:one_vs_rest", test=test)
    assert [task.name for task in made.tasks] == ["digit=0", "digit=1", "digit=2"]
    assert made.labels[-3:].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert "Left out, since only test rows have the class: 'digit=7'." in made.warnings


def test_a_rare_class_is_told_of_by_name() -> None:
    made = make_table(frame(np.r_[AT, AT, 1]).assign(digit=[0, 1] * 12 + [2]), Roles(("digit:one_vs_rest",)))
    assert rare_classes(made, 3) == ["Task 'digit=2': too rare to be judged in every one of 3 folds: '2' (1 rows)."]
