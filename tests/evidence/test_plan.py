"""Plans follow the size of the table."""

from __future__ import annotations

import pytest

from kinfolk.evidence.plan import MOST_SECONDS, _seconds, plan_for


@pytest.mark.parametrize(
    ("rows", "columns", "tasks", "splits"),
    [(649, 70, 3, (3, 5)), (4449, 21, 7, (1, 5)), (32561, 130, 3, (1, 3))],
)
def test_the_tables_that_were_measured(rows: int, columns: int, tasks: int, splits: tuple[int, int]):
    plan = plan_for(rows, columns, tasks)
    assert (plan.repeats, plan.folds) == splits


def test_many_columns_and_tasks_make_it_leaner():
    rich, lean = plan_for(334, 20, 3), plan_for(334, 263, 16)
    assert lean.repeats < rich.repeats
    assert lean.settings < rich.settings
    assert _seconds(lean, 334, 263, 16) <= MOST_SECONDS


def test_the_leanest_plan_is_the_last_resort():
    assert plan_for(15362, 28, 139).held == 1
