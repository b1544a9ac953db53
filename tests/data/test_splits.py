"""Splits: every row judged once per repeat, tasks spread evenly, groups together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfolk.data.splits import fold_numbers, outer_splits, rare_classes, stop_rows, unlabelled_rows, whole_split
from kinfolk.data.tables import Roles, make_table
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError


def table(rows: int = 60, **roles: object):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "x": random.normal(size=rows),
            "y": random.normal(size=rows),
            "passes": np.where(np.arange(rows) % 5 == 0, "yes", "no"),
            "who": np.arange(rows) // 3,
        }
    )
    frame.loc[:9, "y"] = np.nan
    return make_table(frame, Roles(("y", "passes"), **roles))  # type: ignore[arg-type]


def test_each_repeat_judges_every_row_once_and_repeats_differ():
    splits = outer_splits(table(), 2, 5, seed=0)
    assert len(splits) == 10
    for repeat in (0, 1):
        judged = np.concatenate([s.test for s in splits if s.repeat == repeat])
        assert sorted(judged) == list(range(60))
    assert all(not set(s.train) & set(s.test) for s in splits)
    assert not np.array_equal(splits[0].test, splits[5].test)


def test_classes_and_gaps_are_spread_evenly():
    made = table()
    for split in outer_splits(made, 1, 5, seed=0):
        assert np.nansum(made.labels[split.test, 1]) in (2, 3)
        assert np.isnan(made.labels[split.test, 0]).sum() in (1, 2, 3)


def test_groups_stay_together():
    made = table(group="who")
    assert made.groups is not None
    for split in outer_splits(made, 1, 4, seed=0):
        assert not set(made.groups[split.train]) & set(made.groups[split.test])


def test_rows_without_any_label_stand_apart_in_every_split():
    frame = pd.DataFrame({"x": range(40), "y": [None] * 10 + list(np.arange(30.0))})
    made = make_table(frame, Roles(("y",)))
    for split in [*outer_splits(made, 1, 3, seed=0), whole_split(made, 1, seed=0)]:
        assert split.unlabelled.tolist() == list(range(10))
        assert sorted([*split.train, *split.test]) == list(range(10, 40))


def test_of_many_rows_without_labels_the_same_few_are_drawn_for_every_split():
    frame = pd.DataFrame({"x": range(60), "y": [None] * 30 + list(np.arange(30.0))})
    made = make_table(frame, Roles(("y",)))
    first, *others = (split.unlabelled.tolist() for split in outer_splits(made, 1, 3, seed=0, unlabelled=7))
    assert len(set(first)) == 7
    assert all(other == first for other in others)
    assert unlabelled_rows(made, 7, seed=1).tolist() != first


def test_rows_without_labels_are_of_no_group_that_judges_and_are_no_test_rows():
    frame = pd.DataFrame({"x": range(40), "y": [None] * 10 + list(np.arange(30.0)), "who": np.arange(40) % 10})
    made = make_table(frame, Roles(("y",), group="who"))
    assert made.groups is not None
    for split in outer_splits(made, 1, 4, seed=0):
        assert not set(made.groups[split.unlabelled]) & set(made.groups[split.test])
        assert set(made.groups[split.unlabelled]) | set(made.groups[split.test]) == set(range(10))
    marked = frame.assign(x=frame["x"] % 7, part=["test"] * 5 + ["train"] * 20 + ["test"] * 15)
    (split,) = outer_splits(make_table(marked, Roles(("y",), split="part")), 1, 4, seed=0)
    assert split.unlabelled.tolist() == list(range(5, 10))
    assert split.train.tolist() == list(range(10, 25))


def test_the_users_test_rows_are_the_only_split():
    frame = pd.DataFrame({"x": range(40), "y": np.arange(40.0), "part": ["train"] * 25 + ["test"] * 15})
    (split,) = outer_splits(make_table(frame, Roles(("y",), split="part")), 3, 5, seed=0)
    assert split.test.tolist() == list(range(25, 40))


def test_too_few_labels_and_too_few_groups_are_refused():
    with pytest.raises(InputError, match=r"at least 40 labelled rows for 20 folds"):
        outer_splits(table(30), 1, 20, seed=0)
    with pytest.raises(InputError, match="groups"):
        outer_splits(table(30, group="who"), 1, 8, seed=0)


def test_rare_classes_are_named():
    frame = pd.DataFrame({"x": range(40), "y": ["a"] * 20 + ["b"] * 18 + ["c"] * 2})
    (note,) = rare_classes(make_table(frame, Roles(("y",))), 5)
    assert "'c' (2 rows)" in note


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 60), st.integers(2, 4), st.integers(0, 5), st.booleans())
def test_folds_are_even_and_a_function_of_the_seed(rows: int, folds: int, seed: int, grouped: bool):
    random = np.random.default_rng(seed)
    labels = np.where(random.random((rows, 2)) < 0.3, np.nan, random.normal(size=(rows, 2)))
    tasks = (Task("a", "regression"), Task("b", "regression"))
    groups = np.arange(rows) // 2 if grouped else None
    found = fold_numbers(labels, tasks, groups, folds, seed)
    assert np.array_equal(found, fold_numbers(labels, tasks, groups, folds, seed))
    counts = np.bincount(found, minlength=folds)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= max(6, rows // 4)


def test_stop_rows_are_a_seventh():
    labels = np.random.default_rng(0).normal(size=(70, 1))
    train, stop = stop_rows(np.arange(10, 70), labels, (Task("a", "regression"),), None, 0)
    assert len(stop) in (8, 9)
    assert sorted([*train, *stop]) == list(range(10, 70))
