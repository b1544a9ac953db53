"""What methods learn beside weights: from a stack to the run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_arms import SHORT, jobs, rows
from test_compare import collected, plan, table

from kinfolk.balancing import Fixed, Uncertainty
from kinfolk.data.tasks import Task
from kinfolk.evidence import stacks as stacking
from kinfolk.evidence.arms import SETTINGS, NetworkArm
from kinfolk.evidence.compare import compare, prepare
from kinfolk.evidence.jobs import LEARNED, Setting, Surroundings, setting_text
from kinfolk.evidence.stacks import Stack, train_together
from kinfolk.quantities import Quantity
from kinfolk.runs import Folder
from kinfolk.sharing import Hard
from kinfolk.training import checkpoints
from kinfolk.training.loop import Learned, Parts
from kinfolk.trunks.base import Trunk


class Telling(Hard):
    """Hard sharing that tells of a table: how often an epoch began, times 1, 2 ... in its cells."""

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Hard:
        super().setup(trunk, tasks, inputs)
        self._names = tuple(task.name for task in tasks)
        self.dial: torch.Tensor
        self.register_buffer("dial", torch.zeros(1))
        return self

    def at_epoch(self, epoch: int, losses: torch.Tensor | None, errors: torch.Tensor | None) -> None:
        self.dial.add_(torch.linspace(1, 2, len(self.dial)))

    def learned(self) -> Mapping[str, Quantity]:
        size = len(self._names)
        values = self.dial[:, None, None] * torch.arange(1.0, 1 + size**2).view(size, size)
        return {"likeness": Quantity(values, self._names, self._names)}


def variance(self: Uncertainty) -> Mapping[str, Quantity]:
    """Variances under the names of the tasks that the first replica was made for."""
    return {"log variance": Quantity(self.log_variance.detach().view(-1, 1, 1), ("all rows",), ("a",))}


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard sharing that tells of a quantity."""
    make = NetworkArm.make

    def telling(self: NetworkArm, setting: Setting) -> Parts:
        parts = make(self, setting)
        return replace(parts, sharing=Telling()) if isinstance(parts.sharing, Hard) else parts

    monkeypatch.setattr(NetworkArm, "make", telling)


def test_the_members_of_a_setting_are_averaged(learning: None) -> None:
    (stack,) = NetworkArm("hard", SETTINGS[:2], SHORT, 8).stacks(rows(), jobs())
    train_together([stack], Surroundings())
    found = stack.learned()
    assert set(found["setting"]) == {0, 1}
    assert list(found.columns.sort_values()) == sorted(set(LEARNED) - {"arm"})
    last = stack.training.learned[0]
    own = [i for i, setting in enumerate(stack.settings) if setting == 1]
    mean = last.quantities["likeness"].values[own].mean(0)
    first = found[(found["setting"] == 1) & (found["update"] == last.updates)]
    assert np.asarray(first["value"]) == pytest.approx(mean.reshape(-1).numpy(), rel=1e-5)
    assert list(first["line"][:5]) == ["a", "a", "a", "a", "b"]
    assert list(first["column"][:5]) == ["a", "b", "c", "d", "a"]


def noted(stack: Stack, updates: int, numbers: list[int], value: list[float]) -> None:
    values = torch.tensor(value).view(-1, 1, 1)
    quantity = Quantity(values, ("gate",), ("expert",))
    stack.training.learned.append(Learned(updates, torch.tensor(numbers), {"gates": quantity}))


def test_who_has_ended_counts_with_what_it_had_last() -> None:
    (stack,) = NetworkArm("hard", 1, SHORT, 8).stacks(rows(), jobs(settings=1))
    noted(stack, 10, [0, 1], [1.0, 3.0])
    noted(stack, 20, [1], [5.0])
    found = stack.learned()
    assert sorted(found["update"]) == [10, 20]
    assert dict(zip(found["update"], found["value"], strict=True)) == {10: 2.0, 20: 3.0}


def test_a_setting_ends_with_its_last_member() -> None:
    (stack,) = NetworkArm("hard", SETTINGS[:2], SHORT, 8).stacks(rows(), jobs(folds=2)[:2])
    noted(stack, 10, [0, 1], [1.0, 3.0])
    noted(stack, 20, [1], [float("nan")])
    found = stack.learned()
    assert list(found.loc[found["setting"] == 0, "update"]) == [10]
    assert found.loc[found["setting"] == 1, "value"].isna().sum() == 1


def test_large_quantities_are_kept_at_fewer_updates_and_at_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacking, "LEARNED_ROWS", 2)
    (stack,) = NetworkArm("hard", 1, SHORT, 8).stacks(rows(), jobs(settings=1)[:1])
    for update in range(1, 8):
        noted(stack, update, [0], [float(update)])
    assert sorted(stack.learned()["update"]) == [1, 7]
    monkeypatch.setattr(stacking, "LEARNED_ROWS", 1)
    assert list(stack.learned()["update"]) == [7]


def test_replicas_of_other_tasks_bear_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that are alike are replicas of one stack, made with the names of the first."""

    # A single task has nothing to balance: whatever the arm says, its balancing is `fixed`.
    def factors(self: Fixed) -> Mapping[str, Quantity]:
        return {"factor": Quantity(self.factor.view(-1, 1, 1), ("all rows",), self._names)}

    monkeypatch.setattr(Fixed, "learned", factors)
    fits = NetworkArm("independent", 1, SHORT, 8).fit(rows(), jobs(settings=1))
    regressions = fits.learned[fits.learned["column"] != "b"]
    assert {"a", "d"} <= set(regressions["column"])
    assert set(fits.learned["line"]) == {"all rows"}


def test_where_labels_do_not_tell_tasks_apart_the_name_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def unnamed(self: Fixed) -> Mapping[str, Quantity]:
        return {"state": Quantity(self.factor.view(-1, 1, 1), ("x",), ("y",))}

    monkeypatch.setattr(Fixed, "learned", unnamed)
    fits = NetworkArm("independent", 1, SHORT, 8).fit(rows(), jobs(settings=1))
    assert set(fits.learned["quantity"]) == {f"state ({name})" for name in "abcd"}


def test_a_resumed_fit_has_learned_the_same(learning: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    arm = NetworkArm("hard + uncertainty", 2, SHORT, 8)
    whole = arm.fit(rows(), jobs()).learned
    assert arm.fit(rows(), jobs(), Surroundings(Folder(tmp_path), deadline=time.monotonic())).cut
    pd.testing.assert_frame_equal(arm.fit(rows(), jobs(), Surroundings(Folder(tmp_path))).learned, whole)
    assert list(whole.columns) == LEARNED
    assert set(whole["arm"]) == {"hard + uncertainty"}
    assert set(whole["setting"]) == {setting_text(setting) for setting in SETTINGS[:2]}


def test_the_run_folder_gets_what_the_model_learned(learning: None, tmp_path: Path) -> None:
    whole = prepare(table(), plan("ridge", "mlp(width=4) + hard", "mlp(width=4) + independent"), tmp_path)
    compare(whole)
    found = collected(whole, "learned")
    assert set(found["arm"]) == {"mlp(width=4) + hard"}
    assert set(found["line"]) == set(found["column"]) == {"a", "b"}
    assert np.isfinite(found["value"]).all()
    assert [p.parent.parent.name for p in tmp_path.glob("splits/*/*/learned.parquet")] == ["model"]


def test_a_run_without_such_quantities_has_an_empty_table(tmp_path: Path) -> None:
    whole = prepare(table(), plan("ridge", "mlp(width=4) + hard"), tmp_path)
    compare(whole)
    found = collected(whole, "learned")
    assert list(found.columns) == LEARNED
    assert found.empty
    assert not list(tmp_path.glob("splits/*/*/learned.parquet"))


def test_a_member_that_failed_does_not_count(learning: None) -> None:
    wild = {"encoding": "standard", "rate": 1e30, "decay": 0.0, "dropout": 0.0}
    fits = NetworkArm("hard", (SETTINGS[3], wild), SHORT, 8).fit(rows(), jobs())
    assert set(fits.learned["setting"]) == {setting_text(SETTINGS[3])}
    assert np.isfinite(fits.learned["value"]).all()
