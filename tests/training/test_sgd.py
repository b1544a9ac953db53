"""Plain gradient steps on stacks against torch's own, and shapes of the learning rate."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from small_trainings import PATIENT, member, mixed
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Fixed
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Training
from kinfolk.training.optim import Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.training.slices import Tuned
from kinfolk.trunks import Mlp

KINDS: list[dict[str, Any]] = [{}, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}]
SETTINGS = [(0.1, 0.0), (0.1, 0.0), (0.03, 0.2)]


class One(nn.Module):
    """One replica: a parameter of two slices and its optimiser."""

    def __init__(self, seed: int, rate: float, decay: float, **kind: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(seed)))
        reach = torch.tensor([[True, False], [False, True]])
        self.optimizer = Sgd([Tuned(self.weight, reach=reach)], rate, decay, **kind)


def gradient(step: int, copies: int) -> Tensor:
    return torch.randn(copies, 3, 5, generator=torch.Generator().manual_seed(100 + step))


def move(one: One, presence: list[Tensor | None], first: int = 0) -> None:
    for step, present in enumerate(presence):
        one.optimizer.present, one.optimizer.factor = present, 1 / (1 + step)
        one.weight.grad = gradient(step, 6)[first : first + len(one.weight)]
        one.optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_one_replica_is_torchs(kind: dict[str, Any]) -> None:
    one = One(0, 0.03, 0.2, **kind)
    theirs = nn.Parameter(one.weight.detach().clone())
    optimizer = torch.optim.SGD([theirs], lr=0.03, weight_decay=0.2, **kind)
    move(one, [None] * 9)
    for step in range(9):
        optimizer.param_groups[0]["lr"] = 0.03 / (1 + step)
        theirs.grad = gradient(step, 6)[:2]
        optimizer.step()
    torch.testing.assert_close(one.weight.detach(), theirs.detach(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_alone_is_in_the_stack_bit_for_bit(kind: dict[str, Any]) -> None:
    presence = torch.rand(12, 3, 2, generator=torch.Generator().manual_seed(0)) < 0.6
    stack = replicas.stack([One(seed, *settings, **kind) for seed, settings in enumerate(SETTINGS)])
    stack.optimizer.forget()
    move(stack, list(presence))
    for i, settings in enumerate(SETTINGS):
        alone = One(i, *settings, **kind)
        move(alone, [p[i : i + 1] for p in presence], 2 * i)
        assert torch.equal(alone.weight, stack.weight[2 * i : 2 * i + 2])


def test_a_slice_without_a_present_task_keeps_still() -> None:
    one = One(0, 0.1, 0.1, momentum=0.9)
    move(one, [None] * 2)
    before = one.weight.detach().clone()
    move(one, [torch.tensor([[True, False]])] * 3)
    assert torch.equal(one.weight[1], before[1])
    assert not torch.equal(one.weight[0], before[0])


def test_momentum_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\). Got 1.0."):
        Sgd([], 0.1, momentum=1.0)


def trained(until: int | None = None, look: int = 1) -> Training:
    problem = mixed()
    parts = Parts(Mlp(width=[6, 4]), Hard(), Fixed(), optimizer=partial(Sgd, momentum=0.5))
    schedule = Schedule(36, 4, 8, 999, 0, shape="constant", tail=10, look=look)
    training = Training(problem, lambda: parts, [member(problem, (0, 1, 2, 3, 4), 0)], schedule)
    training.run(until)
    return training


def test_a_training_resumes_bit_for_bit_and_looks_change_nothing() -> None:
    whole, begun, rare = trained(), trained(16), trained(look=3)
    again = trained(0)
    again.load({name: t.clone() for name, t in begun.state().items()})
    again.run()
    for (name, a), (_, b), (_, c) in zip(
        replicas.tensors(whole.network), replicas.tensors(again.network), replicas.tensors(rare.network), strict=True
    ):
        assert torch.equal(a, b), name
        assert torch.equal(a, c), name
    assert len(rare.history) == len(whole.history) // 3
    torch.testing.assert_close(rare.history[0][3], whole.history[2][3])


def test_shapes_of_the_learning_rate() -> None:
    tail = Schedule(100, 10, 8, 99, 0, shape="constant", tail=20)
    assert [tail.factor(u) for u in (0, 79, 80, 90, 99)] == [1.0, 1.0, 1.0, 0.5, 0.05]
    steps = Schedule(100, 10, 8, 99, 2, shape="constant", steps=((30, 0.1), (60, 0.01)))
    assert [steps.factor(u) for u in (0, 2, 29, 30, 60)] == [0.5, 1.0, 1.0, 0.1, 0.01]
    assert PATIENT.factor(PATIENT.updates - 1) < 0.01


@pytest.mark.parametrize("wrong", [{"shape": "square"}, {"tail": 5}, {"shape": "constant", "tail": 101}, {"look": 0}])
def test_wrong_shapes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|belong"):
        Schedule(100, 10, 8, 99, 0, **wrong)
