"""Fully-adaptive feature sharing: which trees grow, and that growing one changes no output."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.problem import Batch
from kinfolk.data.tasks import Task
from kinfolk.sharing import Branching, Hard
from kinfolk.sharing.base import Outputs, reach
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = tuple(Task(name, "binary", (0, 1)) for name in "abcd")
INPUTS = torch.Size([5])
GROUPS = (0, 1, 0, 1)


def build(tasks: Sequence[Task] = TASKS, seed: int = 0, trunk: Trunk | None = None, **given: Any) -> Branching:
    with replicas.own("network", seed):
        return Branching(**given).setup(trunk or Mlp(6, depth=3), tasks, INPUTS)


def seen(*groups: Sequence[int], kinds: str = "bbbb") -> tuple[Outputs, Batch]:
    """Outputs on held-out rows, for each replica's groups: half of the rows are difficult, which half by the group.

    Tasks of one group agree always, tasks of different groups on half of the rows.
    """
    rows = torch.arange(16)
    halves = torch.stack([(rows // 2**g) % 2 for g in range(3)])  # independent of each other
    margins = 0.1 + 0.5 * halves[torch.tensor(groups)]  # [replica, task, row]
    tasks, targets = [], []
    for kind, margin in zip(kinds, margins.unbind(1), strict=True):
        if kind == "r":
            targets.append(torch.randn(margin.shape))
            tasks.append((targets[-1] + margin * torch.randn(margin.shape).sign()).unsqueeze(-1))
            continue
        targets.append(torch.randint(2, margin.shape).float())
        right = torch.where(targets[-1] == 1, 1 - margin, margin)  # probability of class 1
        classes = torch.stack([(1 - right).log(), right.log()], -1)
        tasks.append(right.logit().unsqueeze(-1) if kind == "b" else classes)
    weight = torch.full((len(groups), len(rows), len(kinds)), 1 / len(rows))
    return Outputs(tasks, tasks), Batch(torch.zeros(len(groups), 16, 5), targets, weight, weight.sum(1) > 0)


def numbers(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in replicas.tensors(model)}


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def shaken(model: Branching) -> Branching:
    """The same with other numbers in every weight, as after training."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def test_it_starts_as_hard_sharing() -> None:
    x = torch.randn(1, 7, 5)
    with replicas.own("network", 0):
        hard = Hard().setup(Mlp(6, depth=3), TASKS, INPUTS)
    outputs = build()(x)
    assert all(torch.equal(a, b) for a, b in zip(outputs.tasks, hard(x).tasks, strict=True))
    assert all(feature is outputs.features[0] for feature in outputs.features)
    found = reach(build(), x)
    for name, slices in found.items():
        if name.startswith("trunk"):
            assert slices.any(1).tolist() == [True, False, False, False], name


def test_there_is_a_phase_for_each_stage_that_may_split() -> None:
    assert build().phases == 4
    assert build(depth=1).phases == 2
    assert build(TASKS[:1]).phases == build(branches=1).phases == 1
    modules = FromModules([nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh()])
    assert build(trunk=modules).phases == 3  # an activation belongs to the stage below it


@pytest.mark.parametrize("kinds", ["bbbb", "rrrr", "mmmm", "bmrb"])
def test_planted_groups_are_found(kinds: str) -> None:
    said = {"b": ("binary", (0, 1)), "r": ("regression", ()), "m": ("multiclass", ("no", "yes"))}
    tasks = tuple(Task(f"{i}", *said[kind]) for i, kind in enumerate(kinds))
    model = build(tasks, alpha=6)
    model.at_phase(1, *seen(GROUPS, kinds=kinds))
    assert model.used.tolist() == [[[0] * 4, [0] * 4, list(GROUPS)]]


@pytest.mark.parametrize(("phase", "switch"), [(1, 4.0), (2, 8.0), (3, 16.0)])
def test_the_switch_point_doubles_with_each_stage(phase: int, switch: float) -> None:
    """Two pairs that agree within and by chance across: one group has separation 1/4, two have 0."""
    for factor in (0.99, 1.01):
        model = build(alpha=factor * switch)
        model.used[:, 4 - phase :] = torch.tensor(GROUPS)
        model.at_phase(phase, *seen(GROUPS))
        assert model.used[0, 3 - phase].tolist() == (list(GROUPS) if factor > 1 else [0] * 4)


def test_the_tree_grows_down_and_ends_in_one_trunk() -> None:
    model = build(alpha=12)
    for phase in (1, 2, 3):
        model.at_phase(phase, *seen(GROUPS))
    assert model.used.tolist() == [[[0] * 4, list(GROUPS), list(GROUPS)]]
    model = build(alpha=100, branches=3)
    model.at_phase(1, *seen((0, 1, 2, 0)))
    model.at_phase(2, *seen((0, 1, 0, 0)))
    model.at_phase(3, *seen((0, 0, 0, 0)))
    assert model.used.tolist() == [[[0] * 4, [0, 1, 0, 0], [0, 1, 2, 0]]]


def test_labels_that_are_not_observed_do_not_count() -> None:
    outputs, batch = seen(GROUPS)
    for task in range(4):  # margins that would group all tasks otherwise, where there is no label
        batch.weight[:, 12:, task] = 0
        outputs.tasks[task][:, 12:] = 40.0 * (-1) ** task
    model = build(alpha=6)
    model.at_phase(1, outputs, batch)
    assert model.used[0, -1].tolist() == list(GROUPS)


TRUNKS = {
    "batch norm": lambda: Mlp(6, depth=3, norm="batch", activation="relu"),
    "dropout": lambda: Mlp(6, depth=3, dropout=0.3, norm="layer"),
    "modules": lambda: FromModules([nn.Linear(5, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.ReLU()]),
}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("training", [False, True])
def test_a_split_changes_no_output(trunk: str, training: bool) -> None:
    x = torch.randn(1, 9, 5)
    model = shaken(build(trunk=TRUNKS[trunk](), alpha=60))
    model(x)  # batch statistics of its own
    model.train(training)
    for phase in range(1, model.phases):
        before = [output.clone() for output in model(x).tasks]
        model.at_phase(phase, *seen(GROUPS))
        for one, other in zip(before, model(x).tasks, strict=True):
            torch.testing.assert_close(one, other)
    assert model.used.tolist() == [[list(GROUPS)] * len(model.trunk.stages)]


def test_branches_go_their_own_ways() -> None:
    model = build(alpha=60)
    model.at_phase(1, *seen(GROUPS))
    torch.stack([output.sum() for output in model(torch.randn(1, 9, 5)).tasks[::2]]).sum().backward()
    moved = [bool(gradient.any()) for gradient in gradients(model.trunk.stages[-1])[0]]
    assert moved == [True, False, False, False]
    found = reach(model, torch.randn(1, 3, 5))
    for name, slices in found.items():
        if name.startswith("trunk.stages.2"):
            assert slices.tolist() == [[True, False] * 2, [False, True] * 2, [False] * 4, [False] * 4], name
        elif name.startswith("trunk"):
            assert slices.tolist() == [[True] * 4] + [[False] * 4] * 3, name


@pytest.mark.parametrize("trunk", TRUNKS)
def test_stacked_replicas_with_different_trees_equal_each_alone(trunk: str) -> None:
    trees = [GROUPS, (0, 0, 0, 0), (0, 1, 2, 2), (0, 0, 1, 1)]
    apart = [shaken(build(seed=seed, trunk=TRUNKS[trunk](), alpha=20)) for seed in range(len(trees))]
    together = replicas.stack([copy.deepcopy(one) for one in apart])
    x = torch.randn(len(trees), 9, 5)
    for phase in range(1, apart[0].phases):
        together.at_phase(phase, *seen(*trees))
        for i, tree in enumerate(trees):
            apart[i].at_phase(phase, *seen(tree))
        outputs = together(x)
        together.zero_grad()
        torch.stack([output.square().sum() for output in outputs.tasks]).sum().backward()
        for i, one in enumerate(apart):
            alone = one(x[i : i + 1]).tasks
            one.zero_grad()
            torch.stack([output.square().sum() for output in alone]).sum().backward()
            for mine, theirs in zip(outputs.tasks, alone, strict=True):
                torch.testing.assert_close(mine[i], theirs[0])
            for mine, theirs in zip(gradients(together), gradients(one), strict=True):
                torch.testing.assert_close(mine.unflatten(0, (len(trees), -1))[i], theirs)
            stacked = numbers(together)
            for name, theirs in numbers(one).items():  # running statistics too, also of branches that are spare
                torch.testing.assert_close(stacked[name].unflatten(0, (len(trees), -1))[i], theirs, msg=name)
    assert len({str(tree) for tree in together.used.tolist()}) == len(trees)


def test_tasks_that_share_in_all_replicas_read_the_same_tensor() -> None:
    model = replicas.stack([build(alpha=60, seed=seed) for seed in range(2)])
    model.at_phase(1, *seen((0, 0, 1, 1), (0, 0, 1, 0)))
    features = model(torch.randn(2, 3, 5)).features
    assert features[0] is features[1]
    assert len({id(feature) for feature in features}) == 3


def test_an_export_computes_the_same() -> None:
    class Values(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = shaken(build(alpha=12))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.model(x).tasks)

    network, x = Values().eval(), torch.randn(1, 7, 5)
    for phase in (1, 2):
        network.model.at_phase(phase, *seen(GROUPS))
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))


def test_the_last_shared_layer_goes_down_with_the_phases() -> None:
    model = build(alpha=60)
    for phase, stage in enumerate((2, 1, 0, 0)):
        if phase:
            model.at_phase(phase, *seen(GROUPS))
        expected = list(model.trunk.stages[stage].parameters())
        assert all(a is b for a, b in zip(model.last_shared(), expected, strict=True))
    modules = build(trunk=FromModules([nn.Linear(5, 4), nn.Tanh()]))
    assert modules.last_shared()[0] is next(modules.trunk.stages[0].parameters())
    assert build(trunk=FromModules([nn.Tanh()])).last_shared() == []


def test_what_is_learned_is_who_uses_which_branch() -> None:
    model = build(alpha=60)
    model.at_phase(1, *seen(GROUPS))
    found = model.learned()
    assert list(found) == [f"branches at stage {i}" for i in range(3)]
    top = found["branches at stage 2"]
    assert top.lines == ("a", "b", "c", "d")
    assert top.columns == ("branch 0", "branch 1", "branch 2", "branch 3")
    assert top.values.argmax(-1).tolist() == [list(GROUPS)]
    assert top.values.sum(-1).tolist() == [[1.0] * 4]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alpha": -1}, r"`alpha` must be at least 0\. Got -1"),
        ({"alpha": float("nan")}, r"`alpha` must be at least 0\. Got nan"),
        ({"branches": 0}, r"`branches` must be at least 1, or None\. Got 0"),
        ({"depth": 0}, r"`depth` must be at least 1, or None\. Got 0"),
        ({"depth": 4}, r"`depth` must be at most the trunk's 3 stages\. Got 4"),
    ],
)
def test_bad_input(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(**given)
