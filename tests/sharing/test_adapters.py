"""Adapters: bottlenecks of each task's own in a shared or frozen trunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Adapters, Hard
from kinfolk.sharing.base import Sharing, reach
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([5])


def build(kind: Sharing, trunk: Trunk | None = None, inputs: torch.Size = INPUTS) -> Any:
    with replicas.own("network", 0):
        return kind.setup(trunk or Mlp(6), TASKS, inputs)


def silence(model: Any) -> None:
    for adapter in model.adapters:
        nn.init.zeros_(adapter.up.weight)
        nn.init.zeros_(adapter.up.bias)


@pytest.mark.parametrize("image", [False, True])
def test_zero_up_projections_equal_the_trunk(image: bool) -> None:
    layers = [nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 2)] if image else [nn.Linear(5, 4), nn.Tanh()]
    inputs = torch.Size([1, 5, 5]) if image else INPUTS
    x = torch.randn(1, 4, *inputs)
    model, hard = (build(kind, FromModules(layers), inputs) for kind in (Adapters(size=2), Hard()))
    before = [feature.detach() for feature in model(x).features]
    silence(model)
    for feature, near in zip(model(x).features, before, strict=True):
        torch.testing.assert_close(feature, hard(x).features[0])
        torch.testing.assert_close(near, feature, rtol=0, atol=0.01)  # it starts near the trunk
        assert not torch.equal(near, feature)


def test_an_adapter_serves_its_task_and_the_trunk_all() -> None:
    model = build(Adapters(size=3))
    found = reach(model, torch.randn(1, 3, 5))
    for name, slices in found.items():
        if name.startswith("adapters"):
            assert slices.tolist() == torch.eye(3, dtype=torch.bool).tolist(), name
        if name.startswith("trunk"):
            assert slices.tolist() == [[True] * 3], name
    assert [tuple(p.shape) for p in model.adapters[1].parameters()] == [(3, 6, 3), (3, 1, 3), (3, 3, 6), (3, 1, 6)]
    assert all(a is b for a, b in zip(model.last_shared(), model.trunk[-1].parameters(), strict=True))


class Counting(nn.Module):
    seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x * 2


def test_the_trunk_runs_once_as_long_as_nothing_differs() -> None:
    model = build(Adapters(size=2), FromModules([Counting(), Counting()]))
    Counting.seen.clear()
    model(torch.randn(1, 7, 5))
    assert Counting.seen == [7, 21]


def test_each_task_goes_its_own_way() -> None:
    model, x = build(Adapters(size=2)), torch.randn(1, 4, 5)
    expected = model.heads([_alone(model, x, task) for task in range(3)]).tasks
    for mine, theirs in zip(model(x).tasks, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def _alone(model: Any, x: Tensor, task: int) -> Tensor:
    for stage, adapter in zip(model.trunk, model.adapters, strict=True):
        x = stage(x)
        inside = x @ adapter.down.weight[task] + adapter.down.bias[task]
        x = x + nn.functional.gelu(inside) @ adapter.up.weight[task] + adapter.up.bias[task]
    return x


def problem() -> Problem:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=g)
    labels = torch.stack([x[:, 0] + x[:, 1], (x[:, 1] > 0) + 1.0 * (x[:, 2] > 0), x[:, 3] * x[:, 0]], 1)
    labels[torch.rand(60, 3, generator=g) < 0.2] = torch.nan
    return Problem.from_arrays(x.double().numpy(), labels.double().numpy(), list(TASKS))


SCHEDULE = Schedule(updates=20, every=4, batch=8, patience=99, warmup=2)


def training(frozen: bool = True, seeds: tuple[int, ...] = (0, 1)) -> Training:
    def make() -> Parts:
        return Parts(Mlp(6, norm="batch", dropout=0.2), Adapters(size=2, frozen=frozen), Fixed())

    members = [Replica(torch.arange(40), torch.arange(40, 60), (0, 1, 2), seed, 1e-2, 0.01) for seed in seeds]
    return Training(problem(), make, members, SCHEDULE)


def test_a_frozen_trunk_is_trained_first_and_then_rests() -> None:
    one = training()
    model = one.network.model
    tensors = lambda: {name: t.clone() for name, t in replicas.tensors(model)}  # noqa: E731
    start = tensors()
    one.run(20)
    first = tensors()
    best = [one.stopping.snapshot(i) for i in range(2)]
    one.run()
    last = tensors()
    adapters = [name for name in start if name.startswith("adapters")]
    trunk = [name for name in start if name.startswith("trunk") and "seed" not in name]
    assert all(torch.equal(start[name], first[name]) for name in adapters)
    assert any(not torch.equal(start[name], first[name]) for name in trunk)
    for name in trunk:  # numbers and running statistics alike: those of the best network of the first phase
        kept = torch.cat([snapshot[name].unflatten(0, (3, -1))[0] for snapshot in best])
        assert torch.equal(last[name], kept), name
    assert all(not torch.equal(first[name], last[name]) for name in (*adapters, "heads.layers.0.weight"))
    assert bool(one.stopping.snapshot(0)["awake"].all())  # what is handed over uses its adapters


def test_the_first_phase_is_hard_sharing() -> None:
    x = torch.randn(1, 4, 5)
    model, hard = build(Adapters(frozen=True)), build(Hard())
    for mine, theirs in zip(model(x).tasks, hard(x).tasks, strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(model.eval()(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(bool(slices.any(1).all()) for slices in reach(model, x).values())


def test_a_frozen_trunk_computes_as_in_prediction() -> None:
    model = build(Adapters(frozen=True), Mlp(6, norm="batch", dropout=0.5))
    model.awake.fill_(True)
    x = torch.randn(1, 8, 5)
    for mine, theirs in zip(model.train()(x).tasks, model.eval()(x).tasks, strict=True):
        assert torch.equal(mine, theirs)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_phases_resume_and_stand_alone(double) -> None:
    whole = training()
    whole.run()
    through = training()
    through.run(24)
    state = {name: tensor.clone() for name, tensor in through.state().items()}
    through = training()
    through.load(state)
    through.run()
    other = through.state()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor.nan_to_num(), other[name].nan_to_num()), name
    alone = training(seeds=(1,))
    alone.run()
    for name, tensor in alone.stopping.snapshot(0).items():
        torch.testing.assert_close(whole.stopping.snapshot(1)[name], tensor, rtol=1e-6, atol=1e-7)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"`size` of adapters must be at least 1\. Got 0"):
        Adapters(size=0)
    assert Adapters().rates(0) == {}
    assert Adapters().phases == 1
