"""Covariance alignment: a linear map of each task's inputs before the shared trunk."""

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
from kinfolk.sharing import CovarianceAlignment, Hard
from kinfolk.sharing.base import Sharing, reach
from kinfolk.training.loop import Training
from kinfolk.training.network import Parts, Replica
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules, Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([2, 3])
SIZE, BODY = 5, 2


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(kind: Sharing) -> Any:
    with replicas.own("network", 0):
        return kind.setup(Mlp(6), TASKS, INPUTS)


def test_it_starts_as_hard_sharing() -> None:
    x = torch.randn(1, 4, 2, 3)
    for mine, theirs in zip(build(CovarianceAlignment())(x).tasks, build(Hard())(x).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_each_task_reads_inputs_through_its_own_map() -> None:
    model, x = build(CovarianceAlignment()), torch.randn(1, 4, 2, 3)
    nn.init.normal_(model.deviations)
    outputs = model(x)
    for i in range(3):
        mapped = (x.flatten(2) @ (torch.eye(6) + model.deviations[i])).view_as(x)
        for stage in model.trunk:
            mapped = stage(mapped)
        torch.testing.assert_close(outputs.features[i], mapped)
    assert reach(model, x)["deviations"].tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert all(a is b for a, b in zip(model.last_shared(), model.trunk[-1].parameters(), strict=True))


def test_how_far_maps_are_apart() -> None:
    model = build(CovarianceAlignment())
    table = model.learned()["distance of alignments"]
    assert table.lines == table.columns == ("a", "b", "c")
    assert table.values.tolist() == [[[0.0] * 3] * 3]
    model.deviations.data[1] = -torch.eye(6)
    assert model.learned()["distance of alignments"].values[0, 0].tolist() == pytest.approx([0, 1, 0])
    assert (
        replicas.stack([model, build(CovarianceAlignment())]).learned()["distance of alignments"].values.shape[0] == 2
    )


def fit(model: Sharing, parameters: list[nn.Parameter], x: tuple[Tensor, Tensor], y: Tensor) -> float:
    """The squared error after training some parameters: task i is labelled on the i-th inputs."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=400, tolerance_grad=1e-12, tolerance_change=1e-16,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(model(one[None]).tasks[i][0] - y).square().mean() for i, one in enumerate(x)]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(closure().detach())


def planted() -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Inputs of two tasks that are rotations of each other, X2 = X1 Q, and the rotation."""
    rotation = torch.linalg.qr(torch.randn(SIZE, SIZE))[0]
    one = torch.randn(40, SIZE)
    return (one, one @ rotation), rotation


def linear(kind: Sharing) -> Any:
    tasks = tuple(Task(name, "multiclass", ("x", "y", "z")) for name in ("one", "two"))
    return kind.setup(FromModules([nn.Linear(SIZE, BODY, bias=False)]), tasks, torch.Size([SIZE]))


def test_it_recovers_a_planted_rotation(double) -> None:
    """With trunk and heads given, the second map is Q' where the trunk reads, and still the identity elsewhere."""
    x, rotation = planted()
    model = linear(CovarianceAlignment())
    head = model.heads.layers[0]
    head.weight.data[1], head.bias.data[1] = head.weight.data[0], head.bias.data[0]
    y = model(x[0][None]).tasks[0][0].detach()
    assert fit(model, [model.deviations], x, y) < 1e-12
    body = next(model.trunk.parameters())[0].detach()  # [output, input]
    reads = body.T @ torch.linalg.pinv(body.T)
    expected = torch.eye(SIZE) + (rotation.T - torch.eye(SIZE)) @ reads
    torch.testing.assert_close(model.deviations[1].detach() + torch.eye(SIZE), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.deviations[0].detach(), torch.zeros(SIZE, SIZE), rtol=0, atol=1e-5)


def test_alignment_helps_where_a_small_trunk_cannot_serve_both(double) -> None:
    """All trained together: R2 B A2 = Q' R1 B A1, which one narrow trunk for both inputs cannot be."""
    x, rotation = planted()
    y = x[0] @ torch.randn(SIZE, BODY) @ torch.randn(BODY, 3)
    aligned = linear(CovarianceAlignment())
    assert fit(aligned, list(aligned.parameters()), x, y) < 1e-6
    shared = linear(Hard())
    assert fit(shared, list(shared.parameters()), x, y) > 0.1
    body, heads = next(aligned.trunk.parameters())[0].T, aligned.heads.layers[0].weight
    maps = torch.eye(SIZE) + aligned.deviations
    torch.testing.assert_close(maps[1] @ body @ heads[1], rotation.T @ maps[0] @ body @ heads[0], rtol=0, atol=1e-2)


def test_a_fixed_trunk_rests_while_maps_and_heads_learn() -> None:
    x, y = torch.randn(30, 5), torch.randn(30, 2)
    problem = Problem.from_arrays(x, y.numpy(), [Task("a", "regression"), Task("b", "regression")])
    rows = torch.arange(30)
    one = Replica(rows[:20], rows[20:], (0, 1), 0, 0.01, 0.1)
    training = Training(
        problem,
        lambda: Parts(Mlp(6), CovarianceAlignment(fixed=True), Fixed()),
        [one],
        Schedule(updates=4, every=4, batch=10, patience=9, warmup=1),
    )
    before = {name: p.detach().clone() for name, p in training.network.model.named_parameters()}
    training.run()
    for name, p in training.network.model.named_parameters():
        assert torch.equal(p, before[name]) is name.startswith("trunk"), name
