"""What every penalty of the catalogue keeps, by existing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import kinfolk.penalties
import kinfolk.sharing
from kinfolk import replicas
from kinfolk.auxiliary import Reconstruction
from kinfolk.auxiliary.base import WithAuxiliary, with_tasks
from kinfolk.balancing import Fixed
from kinfolk.catalogue import CATALOGUES
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties.base import Penalty
from kinfolk.sharing.base import Sharing
from kinfolk.terms import parse
from kinfolk.training.network import Network, Parts, Replica
from kinfolk.trunks import Mlp

TASKS = (
    Task("a", "regression"),
    Task("b", "multiclass", ("x", "y", "z")),
    Task("c", "regression"),
    Task("d", "regression", main=False),
)
PENALTIES: list[type[Penalty]] = [
    v for v in vars(kinfolk.penalties).values() if isinstance(v, type) and issubclass(v, Penalty)
]
SHARINGS: list[type[Sharing]] = [
    v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)
]


def build(penalty: type[Penalty], sharing: type[Sharing], seed: int = 0) -> tuple[Penalty, Sharing]:
    tasks = [TASKS[i] for i in sharing().problems(TASKS)[0]]
    with replicas.own("network", seed):
        model = sharing().setup(Mlp(6), tasks, torch.Size([5]))
        return penalty().setup(model, tasks), model


def refusal(penalty: type[Penalty], sharing: type[Sharing]) -> str | None:
    try:
        build(penalty, sharing)
    except ValueError as error:
        return str(error)
    return None


def values(penalty: Penalty, model: Sharing, x: torch.Tensor) -> torch.Tensor:
    outputs = model(x)
    return penalty(model, outputs, torch.stack([task.mean((1, 2)) for task in outputs.tasks], 1))


@pytest.fixture(params=PENALTIES, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Penalty]:
    return request.param


@pytest.fixture
def suitable(kind: type[Penalty]) -> list[type[Sharing]]:
    """The sharings that it can be added to; others are refused by name, in one line."""
    refused = {sharing: refusal(kind, sharing) for sharing in SHARINGS}
    for sharing, said in refused.items():
        if said is not None:
            assert said.startswith("`")
            assert sharing.__name__.lower() in said.lower()
            assert "\n" not in said
    found = [sharing for sharing, said in refused.items() if said is None]
    assert found
    return found


def test_setup_gives_the_penalty_itself(kind: type[Penalty], suitable: list[type[Sharing]]) -> None:
    model, penalty = build(kind, suitable[0])[1], kind()
    tasks = [TASKS[i] for i in suitable[0]().problems(TASKS)[0]]
    assert penalty.setup(model, tasks) is penalty


def test_a_value_per_replica_with_a_finite_gradient(kind: type[Penalty], suitable: list[type[Sharing]]) -> None:
    for sharing in suitable:
        penalty, model = build(kind, sharing)
        value = values(penalty, model, torch.randn(1, 7, 5))
        assert value.shape == (1,)
        assert bool(value.isfinite().all())
        value.sum().backward()
        gradients = [p.grad for p in [*model.parameters(), *penalty.parameters()] if p.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients), sharing.__name__


def test_it_is_told_of_no_auxiliary_task(kind: type[Penalty], suitable: list[type[Sharing]]) -> None:
    """What a network is trained with beside its own tasks is none of a penalty's business."""
    labels = np.random.default_rng(0).integers(2, size=(8, len(TASKS))).astype(float)
    added = Reconstruction()
    problem = with_tasks(Problem.from_arrays(np.random.default_rng(1).normal(size=(8, 5)), labels, TASKS), [added.task])
    columns = suitable[0]().problems(TASKS)[0]
    rows, of_all = torch.arange(8), (*columns, len(TASKS))
    parts = Parts(Mlp(6), WithAuxiliary(suitable[0](), [added]), Fixed(), (kind(),))
    network = Network(problem, parts, Replica(rows, rows, of_all, 0, 1e-3, 0.0), 4, 8)
    penalty = network.get_submodule("penalties.0")
    assert isinstance(penalty, kind)
    plain = network.model.handed_over
    value = values(penalty, plain, torch.randn(1, 7, 5))
    assert bool(value.isfinite().all())


def test_a_stack_is_worth_what_its_replicas_are(kind: type[Penalty], suitable: list[type[Sharing]]) -> None:
    for sharing in suitable:
        apart = [build(kind, sharing, seed) for seed in range(3)]
        penalties, models = (replicas.stack(list(map(copy.deepcopy, of))) for of in zip(*apart, strict=True))
        x = torch.randn(3, 7, 5)
        together = values(penalties, models, x)
        each = [values(*one, x[i : i + 1]) for i, one in enumerate(apart)]
        torch.testing.assert_close(together, torch.cat(each), msg=sharing.__name__)


@pytest.mark.parametrize("sharing", [s for s in SHARINGS if s.penalty], ids=lambda kind: kind.__name__)
def test_the_penalty_that_belongs_to_a_sharing_suits_it(sharing: type[Sharing]) -> None:
    (term,) = parse(sharing.penalty)
    kind = type(CATALOGUES["penalties"].make(term))
    assert kind in PENALTIES
    build(kind, sharing)
