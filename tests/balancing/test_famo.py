"""FAMO against its formulas and TorchJD's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Famo, Losses
from kinfolk.data.tasks import Task

TASKS = [Task(name, "regression") for name in "abc"]


def value(*numbers: float) -> Tensor:
    return torch.tensor(numbers, requires_grad=True) * 1


class Toy:
    """Losses ``level_t + (w - centre_t)^2`` of one shared number, in double precision."""

    def __init__(self, present: tuple[bool, ...] = (True, True, True)) -> None:
        self.w, self.calls = nn.Parameter(torch.tensor(0.5, dtype=torch.float64)), 0
        self.centres = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
        self.levels, self.present = torch.tensor([0.1, 1.0, 2.0]), torch.tensor(present)

    def __call__(self) -> Losses:
        self.calls += 1
        losses = self.levels + (self.w - self.centres) ** 2
        return Losses(torch.where(self.present, losses, 0), self.present)


def test_golden_weights() -> None:
    assert Famo().setup(TASKS[:2]).backward(Losses(value(1.0, 4.0))).tolist() == pytest.approx([0.8, 0.2])
    whole = Famo(reduction="sum").setup(TASKS[:2]).backward(Losses(value(1.0, 4.0)))
    assert whole.tolist() == pytest.approx([1.6, 0.4])
    bounded = Famo(least={"b": 3.0}).setup(TASKS[:2]).backward(Losses(value(1.0, 4.0)))
    assert bounded.tolist() == pytest.approx([0.5, 0.5])


def test_a_task_that_fell_more_weighs_less_next() -> None:
    method = Famo(decay=0.0).setup(TASKS[:2])
    method.adapt(Losses(value(1.0, 4.0)), Losses(value(0.5, 3.9)))
    assert method.logits.tolist() == pytest.approx([-0.025, 0.025], rel=1e-5)  # the first step of Adam is its rate
    weights = method.backward(Losses(value(1.0, 4.0)))
    assert weights[0] < 0.8


@pytest.mark.parametrize("least", [None, {"b": 0.5}])
def test_equals_torchjd(least: dict[str, float] | None) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    bounds = torch.tensor([(least or {}).get(task.name, 0.0) for task in TASKS])
    theirs = scalarization.FAMO(3, min_losses=bounds.double(), lr=0.1, weight_decay=0.01).double()
    ours = Famo(rate=0.1, decay=0.01, least=least).setup(TASKS).double()
    mine, other = Toy(), Toy()
    steps, others = (torch.optim.SGD([toy.w], lr=0.05) for toy in (mine, other))
    for _ in range(8):
        ours.step(mine, steps)
        others.zero_grad()
        theirs(other().value).backward()
        others.step()
        theirs.update(other().value.detach())
        torch.testing.assert_close(mine.w, other.w, rtol=1e-9, atol=0)
    (logits,) = theirs.parameters()
    torch.testing.assert_close(ours.logits, logits.detach(), rtol=1e-7, atol=0)


def test_absent_tasks_stand_still() -> None:
    toy, method = Toy((True, False, True)), Famo(rate=0.1, decay=0.01).setup(TASKS).double()
    optimizer = torch.optim.SGD([toy.w], lr=0.05)
    method.logits.copy_(torch.tensor([0.3, -0.7, 0.1]))
    pair = Famo(rate=0.1, decay=0.01).setup(TASKS[:2]).double()
    pair.logits.copy_(torch.tensor([0.3, 0.1]))
    for _ in range(3):
        before = toy()
        _, weights = method.step(toy, optimizer)
        pair.adapt(*(Losses(losses.value.detach()[[0, 2]]) for losses in (before, toy())))
        assert weights[1] == 0
        assert weights.sum().item() == pytest.approx(1)
    assert method.count.tolist() == [3, 0, 3]
    assert method.logits[1].item() == pytest.approx(-0.7)
    torch.testing.assert_close(method.logits[[0, 2]], pair.logits)
    toy.present[:] = False
    method.step(toy, optimizer)
    assert method.count.tolist() == [3, 0, 3]
    assert bool(toy.w.isfinite())


def test_logits_move_every_so_many_updates() -> None:
    toy, method = Toy(), Famo(every=3).setup(TASKS).double()
    optimizer = torch.optim.SGD([toy.w], lr=0.05)
    moved = []
    for _ in range(6):
        method.step(toy, optimizer)
        moved.append(method.count[0].item())
    assert moved == [0, 0, 1, 1, 1, 2]
    assert toy.calls == 6 + 2


def test_replicas_have_their_own() -> None:
    """The logits of each replica move as they would alone."""
    before, after = torch.tensor([[1.0, 4.0, 2.0], [3.0, 1.0, 1.0]]), torch.tensor([[0.5, 3.9, 2.1], [2.0, 1.2, 0.2]])
    both = replicas.stack([Famo().setup(TASKS) for _ in range(2)])
    both.adapt(Losses(before), Losses(after))
    for i in range(2):
        alone = Famo().setup(TASKS)
        alone.adapt(Losses(before[i]), Losses(after[i]))
        torch.testing.assert_close(both.logits.view(2, 3)[i], alone.logits)


def test_losses_below_their_bound_are_refused() -> None:
    method = Famo(least={"a": 0.5}).setup(TASKS)
    with pytest.raises(ValueError, match=r"the loss of 'b' must be at least 0. Got -2"):
        method.backward(Losses(value(1.0, -2.0, 1.0)))
    with pytest.raises(ValueError, match=r"the loss of 'a' must be at least 0.5. Got 0.25"):
        method.backward(Losses(value(0.25, 2.0, 1.0)))
    even = Famo(least={"b": -3.0}).setup(TASKS).backward(Losses(value(1.0, -2.0, 1.0)))
    assert even.tolist() == pytest.approx([1 / 3] * 3)
    perfect = Famo().setup(TASKS).backward(Losses(value(0.0, 2.0, 1.0)))
    assert perfect.tolist() == pytest.approx([1, 0, 0], abs=1e-6)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"`rate` must be positive and `decay` not negative. Got 0.0, 0.001"):
        Famo(rate=0.0)
    with pytest.raises(ValueError, match=r"`rate` must be positive and `decay` not negative"):
        Famo(decay=-1.0)
    with pytest.raises(ValueError, match=r"`every` must be at least 1. Got 0"):
        Famo(every=0)
    with pytest.raises(ValueError, match=r"`reduction` must be one of native, sum, mean. Got 'none'"):
        Famo(reduction="none")
    with pytest.raises(ValueError, match=r"`least` must name tasks. Got z"):
        Famo(least={"z": 1.0}).setup(TASKS)
