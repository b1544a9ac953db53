"""Progressive layered extraction against its limits, and level by level by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Ple
from kinfolk.sharing.base import reach
from kinfolk.sharing.copies import Copies
from kinfolk.trunks import FromModules, Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([5])


def built(trunk=None, inputs: torch.Size = INPUTS, **given) -> Any:
    return Ple(**given).setup(trunk or Mlp(6, depth=3), TASKS, inputs)


@pytest.mark.parametrize("levels", [None, 1, 2])
def test_one_shared_expert_alone_is_hard_sharing(levels: int | None) -> None:
    hard, model = Hard().setup(Mlp(6, depth=3), TASKS, INPUTS), built(experts=0, shared=1, levels=levels)
    named = {name.replace("trunk.", "common.stages."): t for name, t in hard.state_dict().items()}
    model.load_state_dict({**model.state_dict(), **named})
    x = torch.randn(1, 4, 5)
    for mine, theirs in zip(model(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("levels", [None, 1, 2])
def test_one_own_expert_alone_is_trunks_apart(levels: int | None) -> None:
    model = built(experts=1, shared=0, levels=levels)
    assert isinstance(model.own, Copies)
    x = torch.randn(1, 4, 5)
    apart = model.own(x)
    assert not model.shared_gates
    assert model.last_shared() == []
    for t, feature in enumerate(model(x).features):
        torch.testing.assert_close(feature, apart[:, t])
    found = reach(model, x)
    for name, slices in found.items():
        if name.startswith(("own", "gates")):
            assert slices.tolist() == torch.eye(3, dtype=torch.bool).tolist(), name


def weigh(gate: Any, x: Tensor, i: int) -> Tensor:
    return (x @ gate.weight[i] + gate.bias[i]).softmax(-1)


def run(copies: Any, stage: int, i: int, x: Tensor) -> Tensor:
    """One expert's stage of an mlp, by hand."""
    linear = copies.stages[stage][0]
    return torch.nn.functional.silu(x @ linear.weight[i] + linear.bias[i])


def test_two_levels_by_hand() -> None:
    """Two tasks with two own experts each, and one shared; each level is a layer."""
    model: Any = Ple(experts=2, shared=1).setup(Mlp(6, depth=2), TASKS[::2], INPUTS)
    x = torch.randn(4, 5)
    own = [[run(model.own, 0, 2 * t + i, x) for i in range(2)] for t in range(2)]
    ours = run(model.common, 0, 0, x)
    gates = [weigh(model.gates[0], x, t) for t in range(2)]
    states: list[Any] = [sum(g[:, i, None] * e for i, e in enumerate([*own[t], ours])) for t, g in enumerate(gates)]
    every = weigh(model.shared_gates[0], x, 0)
    common: Any = sum(every[:, i, None] * e for i, e in enumerate([*own[0], *own[1], ours]))
    outputs = model(x[None])
    for t, state in enumerate(states):
        g = weigh(model.gates[1], state, t)
        last = [*(run(model.own, 1, 2 * t + i, state) for i in range(2)), run(model.common, 1, 0, common)]
        torch.testing.assert_close(outputs.features[t][0], sum(g[:, i, None] * e for i, e in enumerate(last)))
    learned = model.learned()
    torch.testing.assert_close(learned["gates of level 1"].values[0, 1], gates[1].mean(0))
    torch.testing.assert_close(learned["shared gate of level 1"].values[0, 0], every.mean(0))


def test_one_level_is_cgc() -> None:
    model = built(experts=1, shared=2, levels=1)
    assert not model.shared_gates
    x = torch.randn(1, 4, 5)
    outputs, own, ours = model(x), model.own(x), model.common(x)
    for t in range(3):
        g = weigh(model.gates[0], x, t)
        expected = g[..., :1] * own[:, t] + g[..., 1:2] * ours[:, 0] + g[..., 2:] * ours[:, 1]
        torch.testing.assert_close(outputs.features[t], expected)


def test_who_serves_whom() -> None:
    """The shared gate opens a task's own experts to the other tasks, but not at the last level."""
    model = built(experts=1, shared=1)
    found = reach(model, torch.randn(1, 3, 5))
    apart = torch.eye(3, dtype=torch.bool).tolist()
    assert found["own.stages.0.0.weight"].all()
    assert found["own.stages.2.0.weight"].tolist() == apart
    assert found["gates.2.weight"].tolist() == apart
    assert found["common.stages.2.0.weight"].all()
    assert all(a is b for a, b in zip(model.last_shared(), model.common.stages[2].parameters(), strict=True))


def test_any_stages_and_levels() -> None:
    trunk = FromModules([nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 2)])
    for levels, sizes in ((None, [36, 32, 32]), (2, [36, 32]), (1, [36])):
        model = built(trunk, torch.Size([1, 6, 6]), experts=2, shared=1, levels=levels)
        together = replicas.stack([model, built(trunk, torch.Size([1, 6, 6]), experts=2, shared=1, levels=levels)])
        assert together(torch.randn(2, 4, 1, 6, 6)).features[0].shape == (2, 4, 3 * 3 * 3)
        assert [gate.weight.shape[1] for gate in model.gates] == sizes


def test_learned_before_the_first_pass() -> None:
    model = built(experts=1, shared=2, levels=2)
    learned = model.learned()
    assert list(learned) == ["gates of level 1", "gates of level 2", "shared gate of level 1"]
    gates = learned["gates of level 1"]
    assert (gates.lines, gates.columns) == (("a", "b", "c"), ("own expert 0", "shared expert 0", "shared expert 1"))
    torch.testing.assert_close(gates.values, torch.full((1, 3, 3), 1 / 3))
    model(torch.randn(1, 4, 5))
    seen = model.learned()
    assert {n: (q.values.shape, q.lines, q.columns) for n, q in seen.items()} == {
        n: (q.values.shape, q.lines, q.columns) for n, q in learned.items()
    }


def test_values_outside_their_range() -> None:
    for given in ({"experts": -1}, {"shared": -1}, {"experts": 0, "shared": 0}):
        with pytest.raises(ValueError, match="must be at least 0, and 1 together"):
            Ple(**given)
    with pytest.raises(ValueError, match=r"`levels` must be at least 1.*Got 0"):
        Ple(levels=0)
    with pytest.raises(ValueError, match=r"`levels` must be in 1\.\.3, the stages of the trunk\. Got 4"):
        built(levels=4)
