"""A trunk that is conditioned on a preference over tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Conditioned, Hard
from kinfolk.sharing.base import Sharing
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))


def build(kind: Sharing, trunk: Trunk | None = None, inputs: tuple[int, ...] = (5,)) -> Any:
    with replicas.own("network", 0):
        return kind.setup(trunk or Mlp(6), TASKS, torch.Size(inputs))


def some_preference(rows: int = 4) -> Tensor:
    return torch.rand(1, rows, 3).softmax(-1)


@pytest.mark.parametrize("image", [False, True])
def test_scale_1_and_shift_0_equal_the_trunk(image: bool) -> None:
    layers = [nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 2)] if image else [nn.Linear(5, 4), nn.Tanh()]
    inputs = (1, 5, 5) if image else (5,)
    x = torch.randn(1, 4, *inputs)
    expected = build(Hard(), FromModules(layers), inputs)(x).tasks
    silent = build(Conditioned(), FromModules(layers), inputs)
    for part in (*silent.scales, *silent.shifts):
        nn.init.zeros_(part[2].weight)
    for model in (silent, build(Conditioned(factor=0), FromModules(layers), inputs)):
        for preference in (None, some_preference()):
            for mine, theirs in zip(model(x, preference).tasks, expected, strict=True):
                assert torch.equal(mine, theirs)


def test_features_are_scaled_and_shifted() -> None:
    model = build(Conditioned(hidden=7, factor=0.3), Mlp(6, depth=1))
    x, preference = torch.randn(1, 4, 5), some_preference()
    scale, shift = (1 + 0.3 * model.scales[0](preference.log()), 0.3 * model.shifts[0](preference.log()))
    torch.testing.assert_close(model(x, preference).features[0], scale * model.trunk[0](x) + shift)


def test_no_preference_is_an_equal_one() -> None:
    model, x = build(Conditioned()), torch.randn(1, 4, 5)
    equal = torch.full((1, 4, 3), 1 / 3)
    for mine, theirs in zip(model(x).tasks, model(x, equal).tasks, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_each_row_has_its_own_preference_and_zero_is_allowed() -> None:
    model, x = build(Conditioned()), torch.randn(1, 4, 5)
    preference = some_preference()
    other = preference.clone()
    other[:, 2] = torch.tensor([1.0, 0.0, 0.0])
    before, after = model(x, preference).tasks[1], model(x, other).tasks[1]
    assert bool(after.isfinite().all())
    assert (before == after).all(-1).tolist() == [[True, True, False, True]]


def test_one_network_learns_every_weighting() -> None:
    """x* = (l1 a + l2 b) / (l1 + l2) minimises l1 (x - a)^2 + l2 (x - b)^2: a sigmoid in the logarithm of l1 / l2."""
    a, b = 1.0, -1.0
    tasks = (Task("a", "regression"), Task("b", "regression"))
    model = Conditioned(hidden=32).setup(Mlp(16, depth=1), tasks, torch.Size([1]))
    optimizer = torch.optim.Adam(model.parameters(), 5e-2)
    for update in range(300):
        optimizer.param_groups[0]["lr"] = 5e-2 * (1 - update / 300)
        preference = torch.softmax(torch.rand(1, 64, 2) * 6 - 3, -1)
        x = model(torch.ones(1, 64, 1), preference).tasks[0].squeeze(-1)
        optimizer.zero_grad()
        (preference[..., 0] * (x - a) ** 2 + preference[..., 1] * (x - b) ** 2).mean().backward()
        optimizer.step()
    first = torch.linspace(-2.5, 2.5, 41).sigmoid()
    found = model(torch.ones(1, 41, 1), torch.stack([first, 1 - first], -1)[None]).tasks[0].squeeze()
    torch.testing.assert_close(found, first * a + (1 - first) * b, rtol=0, atol=0.08)


def test_bad_input() -> None:
    wrong: dict[str, Any]
    for wrong in ({"hidden": 0}, {"factor": -1}, {"factor": float("nan")}, {"factor": float("inf")}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            Conditioned(**wrong)
    with pytest.raises(ValueError, match=r"\[replica, row, task\], \(1, 4, 3\)\. Got \(1, 4, 2\)"):
        build(Conditioned())(torch.randn(1, 4, 5), torch.ones(1, 4, 2))
