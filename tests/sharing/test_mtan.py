"""Attention masks over a shared trunk: open masks show its features, and the masks by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, Mtan
from kinfolk.sharing.base import reach
from kinfolk.sharing.mtan import Attention, _fit
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
INPUTS = torch.Size([5])
IMAGES = torch.Size([1, 8, 8])


def convolutional() -> Trunk:
    """A stage that keeps the size of images, one that changes it, and one that ends them."""
    down = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
    return FromModules([nn.Conv2d(1, 3, 3, padding=1), down, nn.Sequential(nn.Flatten(), nn.Linear(36, 6))])


def open_masks(model: Any) -> None:
    for attention in model.attention:
        last = attention.mask[4]
        last.weight.data.zero_()
        last.bias.data.fill_(1e3)


@pytest.mark.parametrize(("make", "inputs"), [(lambda: Mlp(6, depth=3), INPUTS), (convolutional, IMAGES)])
def test_open_masks_are_hard_sharing(make, inputs: torch.Size) -> None:
    trunk = make()
    hard = Hard().setup(trunk, TASKS, inputs)
    model: Any = Mtan().setup(trunk, TASKS, inputs)
    open_masks(model)
    model.load_state_dict({**model.state_dict(), **hard.state_dict()})
    x = torch.randn(1, 4, *inputs)
    mine, theirs = model(x), hard(x)
    for t in range(3):
        assert torch.equal(mine.features[t], theirs.features[t])
        torch.testing.assert_close(mine.tasks[t], theirs.tasks[t])
    assert model.learned()["masks"].values.tolist() == [[[1.0] * 3] * 3]


def test_closed_masks_show_nothing() -> None:
    model: Any = Mtan().setup(Mlp(6), TASKS, INPUTS)
    open_masks(model)
    model.attention[1].mask[4].bias.data[1] = -1e3  # of the second task alone
    features = model(torch.randn(1, 4, 5)).features
    assert [bool(feature.any()) for feature in features] == [True, False, True]


def test_masks_by_hand() -> None:
    """Two stages, in training mode: the batch's own moments."""
    model: Any = replicas.stack([Mtan(reduction=2).setup(Mlp(6), TASKS, INPUTS) for _ in range(2)])
    x = torch.randn(2, 7, 5)
    outputs = model(x)

    def layer(parts, i: int, at: int, y):
        return F.batch_norm(y @ parts[i].weight[at] + parts[i].bias[at], None, None, training=True)

    for r in range(2):
        for t in range(3):
            at, u, attended = 3 * r + t, x[r], None
            for stage, attention in zip(model.trunk, model.attention, strict=True):
                p = F.silu(u @ stage[0].weight[r] + stage[0].bias[r])
                seen = u
                if attended is not None:
                    seen = torch.cat([u, layer(attention.bring, 0, at, attended).relu()], -1)
                mask = layer(attention.mask, 3, at, layer(attention.mask, 0, at, seen).relu()).sigmoid()
                assert attention.mask[0].weight.shape[-1] == 3
                attended, u = mask * p, p
            torch.testing.assert_close(outputs.features[t][r], attended)
            torch.testing.assert_close(model.learned()["masks"].values[r, t, 1], mask.mean())


def test_what_masks_read() -> None:
    """The stage's input where the size of images agrees, else what it gives."""
    model: Any = Mtan().setup(convolutional(), TASKS, IMAGES)
    assert model._reads_input == [True, False, False]
    read = [attention.mask[0].weight.shape[1] for attention in model.attention]
    assert read == [1, 4 + 4, 6 + 6]
    together = replicas.stack([model, Mtan().setup(convolutional(), TASKS, IMAGES)])
    x = torch.randn(2, 4, *IMAGES)
    found = reach(together, x)
    assert [f.any(1).all().item() for f in found.values()] == [True] * len(found)
    assert together(x).features[0].shape == (2, 4, 6)


def test_attended_features_at_another_size() -> None:
    x = torch.arange(16.0).view(1, 1, 1, 4, 4)
    assert _fit(x, torch.Size([4, 4])) is x
    assert _fit(x, torch.Size([2, 2])).flatten().tolist() == [5, 7, 13, 15]
    assert _fit(x, torch.Size([])).flatten().tolist() == [7.5]
    assert _fit(x, torch.Size([3])).flatten().tolist() == [7.5] * 3
    assert _fit(x[..., 0, 0], torch.Size([2, 2])).flatten().tolist() == [0] * 4
    assert _fit(x[..., 0], torch.Size([2])).flatten().tolist() == [4, 12]


def test_all_tasks_are_one_stack() -> None:
    model: Any = Mtan().setup(Mlp(6, depth=3), TASKS, INPUTS)
    assert [type(attention) for attention in model.attention] == [Attention] * 3
    found = reach(model, torch.randn(1, 8, 5))
    for name, slices in found.items():
        if name.startswith("attention"):
            assert slices.tolist() == torch.eye(3, dtype=torch.bool).tolist(), name
        if name.startswith("trunk"):
            assert slices.all(), name
    assert model.last_shared() == list(model.trunk[-1].parameters())


def test_learned_before_the_first_pass() -> None:
    masks = Mtan().setup(Mlp(6), TASKS, INPUTS).learned()["masks"]
    assert (masks.lines, masks.columns) == (("a", "b", "c"), ("stage 1", "stage 2"))
    assert masks.values.tolist() == [[[0.5, 0.5]] * 3]


def test_values_outside_their_range() -> None:
    with pytest.raises(ValueError, match=r"`reduction` must be at least 1\. Got 0"):
        Mtan(reduction=0)
