"""Cascades: what a head reads of tasks before it, and which way gradients go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Cascade, Hard
from kinfolk.sharing.base import Sharing, reach
from kinfolk.trunks import FromModules, Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "binary", (0, 1)))
INPUTS = torch.Size([5])


def build(kind: Sharing, tasks: tuple[Task, ...] = TASKS) -> Any:
    with replicas.own("network", 0):
        return kind.setup(Mlp(6), tasks, INPUTS)


def linear(stop: bool) -> tuple[Any, Tensor, Tensor, Tensor]:
    """y1 = A z, y2 = B z + c y1, z = W x: the model, x, and what W gets from y2 directly and through y1."""
    tasks = (Task("one", "regression"), Task("two", "regression"))
    model: Any = Cascade(stop=stop).setup(FromModules([nn.Linear(5, 4, bias=False)]), tasks, INPUTS)
    x = torch.randn(1, 1, 5)
    heads, c = model.heads.layers[0].weight.detach(), model.levels[0].weights[0].detach().squeeze()
    direct, path = (torch.outer(w.squeeze(), x.squeeze()) for w in (heads[1], c * heads[0]))
    return model, x, direct, path


@pytest.mark.parametrize("stop", [False, True])
def test_the_path_through_an_earlier_task_is_there_or_not(stop: bool) -> None:
    model, x, direct, path = linear(stop)
    model(x).tasks[1].sum().backward()
    theta = next(model.trunk.parameters()).grad
    torch.testing.assert_close(theta, (direct if stop else direct + path)[None])
    assert bool((model.heads.layers[0].weight.grad[0] == 0).all()) is stop
    assert float(model.levels[0].weights[0].grad) != 0  # the reading itself learns


@pytest.mark.parametrize("stop", [False, True])
def test_heads_serve_the_tasks_that_read_them(stop: bool) -> None:
    found = reach(build(Cascade(stop=stop)), torch.randn(1, 3, 5))
    assert found["heads.layers.0.weight"].tolist() == [[True, not stop, not stop], [False, False, True]]
    assert found["heads.layers.1.weight"].tolist() == [[False, True, not stop]]
    assert found["levels.1.weights.0"].tolist() == [[False, False, True]]


def test_raw_outputs_are_read() -> None:
    model, x = build(Cascade()), torch.randn(1, 4, 5)
    outputs = model(x)
    a, b, c = model.heads(outputs.features).tasks
    b = b + a @ model.levels[0].weights[0]
    c = c + torch.cat([a, b], -1) @ model.levels[1].weights[0]
    for mine, expected in zip(outputs.tasks, (a, b, c), strict=True):
        torch.testing.assert_close(mine, expected)
    assert all(feature is outputs.features[0] for feature in outputs.features)


def test_reading_nothing_is_hard_sharing() -> None:
    x = torch.randn(1, 4, 5)
    expected = build(Hard())(x).tasks
    silent = build(Cascade())
    for level in silent.levels:
        nn.init.zeros_(level.weights[0])
    for model in (build(Cascade(order=[])), build(Cascade(order={"a": []})), silent):
        for mine, theirs in zip(model(x).tasks, expected, strict=True):
            assert torch.equal(mine, theirs)


def test_a_list_is_a_graph_and_the_default_is_the_order_of_tasks() -> None:
    x = torch.randn(1, 4, 5)
    expected = build(Cascade())(x).tasks
    for order in (["a", "b", "c"], {"c": ["a", "b"], "b": ["a"]}):
        for mine, theirs in zip(build(Cascade(order=order))(x).tasks, expected, strict=True):
            assert torch.equal(mine, theirs)


def test_a_task_beside_changes_nothing() -> None:
    x, order = torch.randn(1, 4, 5), {"c": ["a"]}
    more = build(Cascade(order=order), (Task("new", "regression"), *TASKS))(x).tasks[1:]
    for mine, theirs in zip(more, build(Cascade(order=order))(x).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_tasks_of_one_depth_and_shape_are_one_product() -> None:
    tasks = tuple(Task(f"t{i}", "regression") for i in range(6))
    model = build(Cascade(order={f"t{i}": ["t5"] for i in range(5)}), tasks)
    assert [tuple(w.shape) for level in model.levels for w in level.weights] == [(5, 1, 1)]


def test_the_last_shared_layer_is_the_trunks() -> None:
    model = build(Cascade())
    assert all(a is b for a, b in zip(model.last_shared(), model.trunk[-1].parameters(), strict=True))


def test_bad_orders() -> None:
    with pytest.raises(ValueError, match=r"circle\. Got a -> b -> a"):
        Cascade(order={"a": ["b"], "b": ["a"]})
    with pytest.raises(ValueError, match=r"circle\. Got a -> a"):
        Cascade(order={"a": ["a"]})
    with pytest.raises(ValueError, match=r"stand once.*\['a', 'b', 'a'\]"):
        Cascade(order=["a", "b", "a"])
    for text in ("abc", {"a": "bc"}):
        with pytest.raises(ValueError, match="must be a list"):
            Cascade(order=text)
    for order in (["a", "z"], {"a": ["z"]}, {"z": ["a"]}):
        with pytest.raises(ValueError, match=r"Got 'z'; tasks are 'a', 'b', 'c'"):
            build(Cascade(order=order))
