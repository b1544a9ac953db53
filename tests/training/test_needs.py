"""What a balancing needs of a sharing is checked before training, and one task has nothing to balance."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_trainings import SCHEDULE, groups, histories, member, mixed, train
from torch import Tensor

from kinfolk.balancing import Fixed
from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task
from kinfolk.datasets import digits
from kinfolk.exceptions import InputError
from kinfolk.fitted import Options, fit
from kinfolk.sharing import CrossStitch, Hard, Independent, Soft
from kinfolk.sharing.base import Sharing
from kinfolk.training.loop import Parts, Training
from kinfolk.trunks import Mlp

COLUMNS = tuple(range(5))


class Needing(Balancing):
    """A sum that needs something."""

    def __init__(self, need: str) -> None:
        super().__init__()
        self.needs = (need,)

    def total(self, losses: Losses) -> Tensor:
        assert getattr(losses, self.needs[0])
        return losses.value.sum(-1)


def parts(sharing: type[Sharing], need: str) -> Parts:
    return Parts(Mlp(4), sharing(), Needing(need))


@pytest.mark.parametrize(
    ("sharing", "need", "said"),
    [(CrossStitch, "last", "a last layer that"), (Soft, "shared", "parameters that"), (Soft, "features", "features")],
)
def test_a_sharing_that_lacks_it_is_refused_before_training(sharing: type[Sharing], need: str, said: str) -> None:
    problem = mixed()
    with pytest.raises(ValueError, match=rf"`test_needs` needs {said}.*`\w+` has none.*another sharing, as hard"):
        Training(problem, lambda: parts(sharing, need), [member(problem, COLUMNS, 0)], SCHEDULE)


@pytest.mark.parametrize("need", ["last", "shared", "features"])
def test_a_sharing_that_has_it_trains(need: str) -> None:
    problem = mixed()
    train(problem, lambda: parts(Hard, need), [member(problem, COLUMNS, s) for s in range(2)], until=4)


@pytest.mark.parametrize("need", ["last", "shared", "features"])
def test_one_task_has_nothing_to_balance(need: str) -> None:
    problem = mixed()
    members = [member(problem, c, 0) for c in groups(Independent, problem.tasks)[0]]
    needing = histories(train(problem, lambda: parts(Independent, need), members, until=8))
    plain = histories(train(problem, lambda: Parts(Mlp(4), Independent(), Fixed()), members, until=8))
    for number, history in plain.items():
        for update, shown in history.items():
            assert all(torch.equal(a, b) for a, b in zip(shown, needing[number][update], strict=True))
        assert all(bool((shown[2] == 1).all()) for shown in history.values())


class Leaving(Balancing):
    """Drops the first task after the first epoch."""

    def setup(self, tasks: Sequence[Task]) -> Leaving:
        super().setup(tasks)
        self.goes_on: Tensor
        self.register_buffer("goes_on", torch.ones(len(tasks), dtype=torch.bool))
        return self

    def total(self, losses: Losses) -> Tensor:
        return losses.value.sum(-1)

    def at_epoch(self, epoch: int, losses: Tensor | None, errors: Tensor | None) -> None:
        if losses is not None:
            self.goes_on.view_as(losses)[:, 0] = False

    def active(self) -> Tensor:
        return self.goes_on


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_task_that_trains_no_more_keeps_its_head(missing: float) -> None:
    """Not even Adam's moments move it, whether all labels are there or not; what is shared goes on."""
    problem = mixed(missing, weighted=bool(missing))
    make = lambda: Parts(Mlp(4), Hard(), Leaving())  # noqa: E731
    training = train(problem, make, [member(problem, COLUMNS, s) for s in range(2)], until=4)
    before = {name: p.detach().clone() for name, p in training.network.model.named_parameters()}
    training.run(until=12)
    for name, parameter in training.network.model.named_parameters():
        old = before[name]
        if name.startswith("heads.layers.0."):  # a slice for each task with one output: a, c, d, e
            moved = (parameter != old).unflatten(0, (2, 4)).flatten(2).any(-1)
            assert moved.tolist() == [[False, True, True, True]] * 2
        else:
            assert not torch.equal(parameter, old)
    _, _, shown, errors, weights = training.history[-1]
    assert bool(shown[:, 0].isnan().all())  # no label of it counted
    assert bool(weights[:, 0].isnan().all())
    assert bool(errors.isfinite().all())  # it is still judged


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    digits().iloc[:60].to_csv(tmp_path / "digits.csv", index=False)
    arm = "mlp + cross_stitch + gradnorm"
    words = ["fit", "digits.csv", "--target", "is_0", "--target", "is_1", "--arm", "ridge", "--arm", arm]
    kinfolk = str(Path(sys.executable).with_name("kinfolk"))
    done = subprocess.run([kinfolk, *words], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "needs a last layer that all tasks share, and `cross_stitch` has none" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_arm_with_tasks_that_are_not_there() -> None:
    options = Options(arms=("mlp + hard(branch={'is_7': 1})",))
    with pytest.raises(InputError, match=r"does not fit this table: `branch` must name tasks. Got 'is_7'"):
        fit(digits().iloc[:60], ["is_0", "is_1"], options=options)
