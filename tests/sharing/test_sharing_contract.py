"""What every sharing of the catalogue keeps, by existing."""

from __future__ import annotations

import copy

import pytest
import torch

import kinfolk.sharing
from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing.base import Sharing, reach
from kinfolk.trunks import Mlp

TASKS = (
    Task("a", "regression"),
    Task("b", "multiclass", ("x", "y", "z")),
    Task("c", "binary", (0, 1)),
    Task("d", "regression"),
    Task("e", "regression", main=False),
)
INPUTS = torch.Size([5])
FOUND: list[type[Sharing]] = [
    v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)
]


@pytest.fixture(params=FOUND, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Sharing]:
    return request.param


def problems(kind: type[Sharing]) -> list[tuple[Task, ...]]:
    return [tuple(TASKS[i] for i in columns) for columns in kind().problems(TASKS)]


def build(kind: type[Sharing], tasks: tuple[Task, ...], seed: int = 0) -> Sharing:
    with replicas.own("network", seed):
        return kind().setup(Mlp(6), tasks, INPUTS)


def test_main_tasks_are_each_in_one_problem(kind: type[Sharing]) -> None:
    columns = [i for problem in kind().problems(TASKS) for i in problem]
    assert len(set(columns)) == len(columns)
    assert set(columns) >= {i for i, task in enumerate(TASKS) if task.main}


def test_setup_gives_the_network_itself(kind: type[Sharing]) -> None:
    sharing = kind()
    assert sharing.setup(Mlp(6), problems(kind)[0], INPUTS) is sharing


def test_one_output_and_one_feature_per_task(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        outputs = build(kind, tasks)(torch.randn(1, 7, 5))
        assert [output.shape for output in outputs.tasks] == [(1, 7, task.size) for task in tasks]
        assert [feature.shape[:2] for feature in outputs.features] == [(1, 7)] * len(tasks)
        assert all(feature.ndim == 3 for feature in outputs.features)


def test_a_stack_computes_what_its_replicas_compute(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        apart = [build(kind, tasks, seed) for seed in range(3)]
        together = replicas.stack([copy.deepcopy(one) for one in apart])
        x = torch.randn(3, 7, 5)
        outputs = together(x).tasks
        for i, one in enumerate(apart):
            for mine, theirs in zip(outputs, one(x[i : i + 1]).tasks, strict=True):
                torch.testing.assert_close(mine[i], theirs[0])


def test_tensors_lead_with_the_copy_axis(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        together = replicas.stack([build(kind, tasks, seed) for seed in range(3)])
        assert all(p.ndim for p in together.parameters())
        assert all(len(tensor) % 3 == 0 for _, tensor in replicas.tensors(together))


def test_the_seed_alone_decides_the_start(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        one = build(kind, tasks).state_dict()
        torch.rand(3)
        other, third = build(kind, tasks).state_dict(), build(kind, tasks, 1).state_dict()
        assert all(torch.equal(t, other[name]) for name, t in one.items())
        assert any(not torch.equal(t, third[name]) for name, t in one.items())


def test_every_slice_but_spare_ones_serves_a_task_and_every_task_is_served(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        model = build(kind, tasks)
        found = reach(model, torch.randn(1, 3, 5))
        assert found.keys() == dict(model.named_parameters()).keys()
        for name, parameter in model.named_parameters():
            assert found[name].shape == (len(parameter), len(tasks))
            serves = found[name].any(1)
            assert bool(serves.any() if model.spare else serves.all()), name
        assert bool(torch.cat(list(found.values())).any(0).all())


def test_last_shared_serves_all_tasks(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        model = build(kind, tasks)
        found = {
            id(p): found
            for p, found in zip(model.parameters(), reach(model, torch.randn(1, 3, 5)).values(), strict=True)
        }
        assert all(bool(found[id(p)].any(0).all()) for p in model.last_shared())


def test_factors_of_the_learning_rate_name_parameters(kind: type[Sharing]) -> None:
    model = build(kind, problems(kind)[0])
    for phase in range(model.phases):
        for prefix, factor in model.rates(phase).items():
            assert factor >= 0
            assert any(name.startswith(prefix) for name, _ in model.named_parameters())


def test_a_row_does_not_depend_on_the_others(kind: type[Sharing]) -> None:
    for tasks in problems(kind):
        model = build(kind, tasks).eval()
        x = torch.randn(1, 7, 5)
        for whole, part in zip(model(x).tasks, model(x[:, 2:4]).tasks, strict=True):
            torch.testing.assert_close(whole[:, 2:4], part)
