"""Hard sharing, single-task learning, heads, and which slices serve which task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Independent
from kinfolk.sharing.base import Outputs, Sharing, reach
from kinfolk.sharing.heads import Heads
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Linear

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([5])


def test_hard_shares_the_trunk_and_nothing_else() -> None:
    model = Hard().setup(Mlp(6), TASKS, INPUTS)
    outputs = model(torch.randn(1, 4, 5))
    assert all(feature is outputs.features[0] for feature in outputs.features)
    found = reach(model, torch.randn(1, 3, 5))
    for name, slices in found.items():
        if name.startswith("trunk"):
            assert slices.tolist() == [[True, True, True]], name
    groups = [found["heads.layers.0.weight"].tolist(), found["heads.layers.1.weight"].tolist()]
    assert groups == [[[True, False, False], [False, False, True]], [[False, True, False]]]


def test_the_last_shared_layer() -> None:
    model = Hard().setup(Mlp(6, depth=3), TASKS, INPUTS)
    assert [tuple(p.shape) for p in model.last_shared()] == [(1, 6, 6), (1, 1, 6)]
    assert all(a is b for a, b in zip(model.last_shared(), model.trunk[-1].parameters(), strict=True))
    model = Hard().setup(FromModules([nn.Linear(5, 4), nn.Tanh()]), TASKS, INPUTS)
    assert [tuple(p.shape) for p in model.last_shared()] == [(1, 4, 5), (1, 4)]  # the layer before the activation


def test_hard_flattens_what_the_trunk_leaves() -> None:
    model = Hard().setup(FromModules([nn.Conv2d(1, 2, 3)]), TASKS, torch.Size([1, 6, 6]))
    assert model(torch.randn(1, 4, 1, 6, 6)).features[0].shape == (1, 4, 2 * 4 * 4)


def test_a_task_branches_off_after_a_stage() -> None:
    x = torch.randn(1, 4, 5)
    trunk = FromModules([nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)])
    model = Hard(branch={"b": 2, "c": 2}).setup(trunk, TASKS, INPUTS)
    outputs = model(x)
    first = model.trunk[1](model.trunk[0](x))
    torch.testing.assert_close(outputs.features[1], first)
    assert outputs.features[1] is outputs.features[2]
    torch.testing.assert_close(outputs.features[0], model.trunk[2](first))
    assert model.heads.groups == ((0,), (1,), (2,))  # heads are joined by their size and what they read
    found = reach(model, x)
    assert found["trunk.0.weight"].tolist() == [[True, True, True]]
    assert found["trunk.2.weight"].tolist() == [[True, False, False]]
    assert all(a is b for a, b in zip(model.last_shared(), model.trunk[0].parameters(), strict=True))


def test_branching_off_at_the_end_is_hard_sharing() -> None:
    x, outputs = torch.randn(1, 4, 5), []
    for kind in (Hard(), Hard(branch={"a": 2})):
        with replicas.own("network", 0):
            outputs.append(kind.setup(Mlp(6), TASKS, INPUTS)(x).tasks)
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_stages_that_no_task_reads_are_left_out() -> None:
    model = Hard(branch={"a": 1, "b": 2, "c": 1}).setup(Mlp(6, depth=4), TASKS, INPUTS)
    assert len(model.trunk) == 2
    assert model.heads.groups == ((0, 2), (1,))
    assert all(a is b for a, b in zip(model.last_shared(), model.trunk[0].parameters(), strict=True))


def test_branches_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"stages from 1 on\. Got 0 for the task 'a'"):
        Hard(branch={"a": 0})
    with pytest.raises(ValueError, match=r"Got 'z'; tasks are 'a', 'b', 'c'"):
        Hard(branch={"z": 1}).setup(Mlp(6), TASKS, INPUTS)
    with pytest.raises(ValueError, match=r"trunk's 2 stages\. Got 3 for 'a'"):
        Hard(branch={"a": 3}).setup(Mlp(6), TASKS, INPUTS)


@pytest.mark.parametrize("split", [0, 1, 2, 3])
def test_a_trunk_splits_after_a_stage(split: int) -> None:
    x = torch.randn(1, 4, 5)
    with replicas.own("network", 0):
        model: Any = Hard(split=split).setup(Mlp(6, depth=3), TASKS, INPUTS)
    outputs, shared = model(x), x
    for stage in model.trunk:
        shared = stage(shared)
    assert len(model.trunk) == split
    for task in range(len(TASKS)):
        alone = shared.expand(len(TASKS), -1, -1)
        for stage in model.upper.stages if split < 3 else ():
            alone = stage(alone)
        torch.testing.assert_close(outputs.features[task][0], alone[task])
    found = reach(model, x)
    for name, slices in found.items():
        if name.startswith(("trunk", "upper")):
            expected = torch.ones(1, 3) if name.startswith("trunk") else torch.eye(3)
            assert torch.equal(slices, expected.bool()), name
    mine = [*model.trunk[-1].parameters()] if split else []
    assert all(a is b for a, b in zip(model.last_shared(), mine, strict=True))


def test_a_split_above_all_stages_is_hard_sharing() -> None:
    x, outputs = torch.randn(1, 4, 5), []
    for kind in (Hard(), Hard(split=2)):
        with replicas.own("network", 0):
            outputs.append(kind.setup(Mlp(6), TASKS, INPUTS)(x).tasks)
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_a_split_in_a_stack_computes_what_its_replicas_compute() -> None:
    x, apart = torch.randn(3, 7, 5), []
    for seed in range(3):
        with replicas.own("network", seed):
            apart.append(Hard(split=1).setup(Mlp(6, depth=3), TASKS, INPUTS))
    expected = [one(x[i : i + 1]).tasks for i, one in enumerate(apart)]
    for task, output in enumerate(replicas.stack(apart)(x).tasks):
        torch.testing.assert_close(output, torch.cat([one[task] for one in expected]))


def test_a_split_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"`split` must be at least 0, and stand without `branch`\. Got -1"):
        Hard(split=-1)
    with pytest.raises(ValueError, match=r"stand without `branch`\. Got 1, \{'a': 1\}"):
        Hard({"a": 1}, split=1)
    with pytest.raises(ValueError, match=r"`split` must be at most the trunk's 2 stages\. Got 3"):
        Hard(split=3).setup(Mlp(6), TASKS, INPUTS)


def test_a_task_starts_alike_whatever_is_learned_beside_it() -> None:
    """A head is drawn by its task's name: adding a task, or their order, changes no other head."""

    def head(tasks: Sequence[Task], name: str) -> Tensor:
        with replicas.own("network", 0):
            model = Hard().setup(Mlp(6), tasks, INPUTS)
        at = [task.name for task in tasks].index(name)
        return model(torch.ones(1, 1, 5)).tasks[at]

    for tasks in (TASKS[:1], TASKS[::-1], TASKS[::2]):
        torch.testing.assert_close(head(tasks, "a"), head(TASKS, "a"))


def test_independent_is_one_problem_per_main_task() -> None:
    tasks = (*TASKS, Task("help", "regression", main=False))
    assert Independent().problems(tasks) == [(0,), (1,), (2,)]
    assert Hard().problems(tasks) == [(0, 1, 2, 3)]
    with pytest.raises(ValueError, match=r"one task per problem\. Got 3"):
        Independent().setup(Mlp(6), TASKS, INPUTS)


def test_independent_is_hard_for_one_task() -> None:
    x = torch.randn(1, 4, 5)
    outputs = []
    for kind in (Hard, Independent):
        with replicas.own("network", 0):
            outputs.append(kind().setup(Mlp(6), TASKS[1:2], INPUTS)(x).tasks[0])
    assert torch.equal(*outputs)


def test_heads_that_read_different_features() -> None:
    heads = replicas.stack([Heads(TASKS, 6) for _ in range(2)])
    features = [torch.randn(2, 4, 6) for _ in TASKS]
    outputs = heads(features)
    for i in range(len(TASKS)):
        alike = heads([features[i]] * len(TASKS))
        torch.testing.assert_close(outputs.tasks[i], alike.tasks[i])
    assert outputs.features is features


class Towers(Sharing):
    """A shared first layer at rest, and a layer for each task, all started at 0."""

    def setup(self, trunk: Trunk, tasks: Sequence[Task], inputs: torch.Size) -> Towers:
        self.first = Linear(5, 2)
        self.own = replicas.stack([Linear(2, 2) for _ in tasks])
        self.heads = Heads(tasks, 2)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.unused = nn.Parameter(torch.zeros(1, 3))
        return self

    def forward(self, inputs: Tensor, preference: Tensor | None = None) -> Outputs:
        x = self.first(inputs).relu()
        return self.heads([tower.relu() for tower in self.own.fan(x)])


def test_reach_is_not_fooled_by_zeros_at_rest() -> None:
    model = Towers().setup(Mlp(2), TASKS, INPUTS)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = reach(model, torch.randn(1, 16, 5))
    assert found["first.weight"].tolist() == [[True, True, True]]
    assert found["own.weight"].tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert found["own.bias"].tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert found["unused"].tolist() == [[False, False, False]]
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_reach_leaves_the_mode_and_the_generator_alone() -> None:
    model = Hard().setup(Mlp(6, dropout=0.5, norm="batch"), TASKS, INPUTS)
    state = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    reach(model, torch.randn(1, 2, 5, generator=torch.Generator()))
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())


def test_heads_may_start_small() -> None:
    tasks = [Task(f"t{i}", "regression") for i in range(40)]
    heads = Hard(spread=0.01).setup(Mlp(64), tasks, torch.Size([5])).heads
    weight, bias = (p.detach() for p in heads.parameters())
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert not bool(bias.any())
    with pytest.raises(ValueError, match="`spread` must be positive"):
        Hard(spread=0.0)
