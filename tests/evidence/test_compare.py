"""The nested procedure: what is fitted, when a budget ends it, what is judged, and how a stopped run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kinfolk import workers
from kinfolk.data.tables import Roles, Table, make_table
from kinfolk.evidence import compare as comparing_module
from kinfolk.evidence import fitting
from kinfolk.evidence.compare import Judging, _Schedule, collect, compare, prepare
from kinfolk.evidence.fitting import Comparing, Item, finished, jobs_of
from kinfolk.evidence.jobs import Rows
from kinfolk.evidence.length import Length
from kinfolk.evidence.plan import Plan
from kinfolk.exceptions import InputError, WorkerDied
from kinfolk.runs import Folder

QUICK = Length(epochs=3, updates=3, batch=16)
ARMS = ("ridge", "mlp(width=4) + hard", "mlp(width=4) + independent")


def collected(whole: Comparing, name: str = "comparison") -> pd.DataFrame:
    """A table of all judged splits, as the run folder gets it."""
    collect(whole, Folder(whole.path))
    return Folder(whole.path).read_frame(f"{name}.parquet")


def table(rows: int = 40, **roles: object) -> Table:
    random = np.random.default_rng(0)
    x = random.normal(size=rows)
    frame = pd.DataFrame({"x": x, "z": random.normal(size=rows), "who": np.arange(rows) // 4})
    frame["heavy"] = np.where(np.arange(rows) % 4 == 0, 0.0, 1.0)
    frame["a"], frame["b"] = x + random.normal(size=rows), x - random.normal(size=rows)
    return make_table(frame, Roles(("a", "b"), **roles))  # type: ignore[arg-type]


def plan(*arms: str, **given: object) -> Plan:
    return Plan(arms or ARMS, 1, 2, 2, 2, 1, QUICK, 4).changed(**given)


class Clock:
    """A clock on which every fit takes ten seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


def scheduled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float | None, cut: tuple[int, ...] = ()):
    """What a schedule gives out, one item after the other, on a clock on which every fit takes ten seconds."""
    clock = Clock()
    monkeypatch.setattr(comparing_module.time, "time", clock.time)
    whole = prepare(table(), plan(), tmp_path)
    schedule = _Schedule(whole, 1, budget)
    given: list[Item | Judging] = []

    def work(item: Item | Judging) -> Item | Judging:
        if isinstance(item, Item):
            clock.now += 10
            result = {"seconds": 10.0, "cut": item.split == whole.model and item.arm in cut}
            whole.folder(item.split, item.arm).write_json("result.json", result)
        given.append(item)
        return item

    workers.run(work, schedule.items(), workers=1, done=lambda _, item: schedule.done(item))
    return whole, schedule, given


def test_without_a_budget_all_splits_are_fitted_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, schedule, given = scheduled(tmp_path, monkeypatch, None)
    items = [(i.split, i.arm) for i in given if isinstance(i, Item)]
    assert sorted(items) == [(split, arm) for split in range(3) for arm in range(3)]
    assert items[0] == (whole.model, 2)  # the costly arm of the model first
    assert [i.split for i in given if isinstance(i, Judging)] == [0, 1]
    assert schedule.not_tried() == []


def test_a_budget_fits_the_model_first_and_says_what_it_did_not_last_for(tmp_path: Path, monkeypatch):
    whole, schedule, given = scheduled(tmp_path, monkeypatch, 70.0)
    items = [(i.split, i.arm) for i in given if isinstance(i, Item)]
    assert items[:3] == [(whole.model, 0), (whole.model, 1), (whole.model, 2)]
    assert {split for split, _ in items[3:]} == {0}
    assert "2 of 2 outer splits: the time budget did not last" in schedule.not_tried()  # this clock judges nothing


def test_arms_that_the_budget_does_not_reach_are_in_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, schedule, given = scheduled(tmp_path, monkeypatch, 50.0)
    assert schedule.late == [2]
    assert {i.arm for i in given if isinstance(i, Item)} == {0, 1}
    assert [i.split for i in given if isinstance(i, Judging)] == [0]
    assert any("independent: the time budget was spent before it began" in note for note in schedule.not_tried())


def test_an_arm_that_was_cut_short_is_left_out_of_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, schedule, given = scheduled(tmp_path, monkeypatch, 200.0, cut=(1,))
    assert finished(whole, whole.model) == [0, 2]
    assert {(i.split, i.arm) for i in given if isinstance(i, Item) and i.split < 2} == {(0, 0), (0, 2), (1, 0), (1, 2)}
    assert any("cut short by the time budget, and it is left out" in note for note in schedule.not_tried())


def test_where_every_arm_was_cut_short_nothing_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, schedule, given = scheduled(tmp_path, monkeypatch, 200.0, cut=(0, 1, 2))
    assert not [i for i in given if isinstance(i, Judging)]
    assert any("used as it is" in note for note in schedule.not_tried())


def test_a_cut_fit_goes_on_when_there_is_time_and_its_split_is_judged_then(tmp_path: Path):
    whole = prepare(table(), plan(), tmp_path)
    compare(whole, budget=0.001)
    assert finished(whole, whole.model) == [0]  # ridge knows no deadline
    assert collected(whole).empty
    assert compare(whole) == []
    assert finished(whole, whole.model) == [0, 1, 2]
    comparison, predictions, history = (collected(whole, n) for n in ("comparison", "predictions", "history"))
    assert set(comparison["arm"]) == {*ARMS, "single-task", "sharing", "hand-over"}
    assert {len(part) for _, part in comparison.groupby(["arm", "task"])} == {2}
    hand_over = predictions[(predictions["arm"] == "hand-over") & (predictions["task"] == "a")]
    assert sorted(hand_over["row"]) == list(range(40))
    assert np.array_equal(hand_over["target"], whole.table.labels[hand_over["row"], 0])
    assert set(history["arm"]) == set(ARMS[1:])


def test_splits_judged_by_fewer_arms_than_the_model_has_are_left_out(tmp_path: Path):
    whole = prepare(table(), plan("ridge", "mlp(width=4) + hard"), tmp_path)
    compare(whole)
    assert len(collected(whole))
    whole.folder(0).write_json("judged.json", [0])
    assert set(collected(whole)["fold"]) == {1}
    compare(whole)  # judged again
    assert set(collected(whole)["fold"]) == {0, 1}


def test_the_same_arm_in_two_spellings_is_one(tmp_path: Path):
    assert prepare(table(), plan("hard", "hard", "mlp( width=4 )+hard"), tmp_path).plan.arms == (
        "hard",
        "mlp(width=4) + hard",
    )


def test_one_network_needs_an_arm_that_shares(tmp_path: Path):
    with pytest.raises(InputError, match="needs an arm whose tasks share a network"):
        prepare(table(), plan("independent", "ridge", one_network=True), tmp_path)


def test_two_comparisons_of_one_folder_do_not_compare_tables(tmp_path: Path):
    one, two = (prepare(table(), plan("ridge"), tmp_path) for _ in range(2))
    first, second = (fitting.encoded(whole, 0)[1].inputs for whole in (one, two))
    assert one != two
    assert np.array_equal(first, second)


@pytest.mark.parametrize("roles", [{"group": "who"}, {"weight": "heavy"}])
def test_inner_folds_are_fewer_where_rows_or_groups_are(tmp_path: Path, roles: dict[str, str]):
    made = table(28, **roles)
    whole = prepare(made, plan("ridge", inner=20, held=20), tmp_path)
    _, rows, _ = fitting.encoded(whole, 0)
    numbers, jobs = jobs_of(whole, 0, rows, 1)
    usable = rows.weight > 0
    assert (numbers[~usable] == -1).all()
    assert len(jobs) == numbers.max() + 1 <= usable.sum()
    for fold, job in enumerate(jobs):
        assert len(job.train)
        assert not set(job.train) & set(np.flatnonzero(numbers == fold))
        if made.groups is not None:
            own = made.groups[whole.splits[0].train]
            assert not set(own[job.train]) & set(own[job.stop])


def test_too_little_memory_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def died(*_: object, **__: object) -> None:
        raise WorkerDied("The worker process of item 3 was killed by signal 9, 3 times.")

    monkeypatch.setattr(comparing_module.workers, "run", died)
    with pytest.raises(InputError, match="--resume and --workers 1"):
        compare(prepare(table(), plan("ridge"), tmp_path))


def test_a_task_without_labels_in_some_fold_is_not_handed_a_network_for_it(tmp_path: Path):
    made = table()
    made.labels[10:, 1] = np.nan
    whole = Comparing(made, plan(*ARMS[1:]), prepare(made, plan(*ARMS[1:]), tmp_path).splits, tmp_path)
    train = whole.splits[0].train
    rows = Rows(made.features.to_numpy()[train], made.labels[train].copy(), made.weight[train], made.tasks)
    numbers, jobs = jobs_of(whole, 0, rows, 1)
    rows.labels[numbers == 0, 1] = np.nan  # fold 1 then has no label to learn from
    arm = fitting.learner(ARMS[2], whole.plan)
    fits = arm.fit(rows, jobs)
    arrays, _ = fitting._predictions(arm, fits, jobs, numbers, rows, rows.inputs[:3], whole.plan)
    assert set(arrays) == {"inner/0/0", "outer/0/0"}
