"""NDDR: limits, the map by hand, the shortcut, and the start from trained trunks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kinfolk import replicas
from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import SoftSharing
from kinfolk.sharing import Nddr, Soft
from kinfolk.sharing.base import Sharing
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "regression"), Task("c", "regression"))
INPUTS = torch.Size([5])
IMAGES = torch.Size([2, 8, 8])


def convolutions() -> FromModules:
    return FromModules([nn.Conv2d(2, 4, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2))])


def build(
    sharing: Sharing, trunk: Trunk | None = None, tasks: Sequence[Task] = TASKS, inputs: torch.Size = INPUTS
) -> Sharing:
    with replicas.own("network", 0):
        return sharing.setup(trunk or Mlp(6), tasks, inputs)


@pytest.mark.parametrize("images", [False, True])
def test_without_the_others_and_with_its_norm_at_rest_it_is_trunks_apart(images: bool) -> None:
    trunk, inputs = (convolutions(), IMAGES) if images else (Mlp(6), INPUTS)
    x = torch.randn(1, 7, *inputs)
    fused, apart = (build(kind, trunk, inputs=inputs).eval() for kind in (Nddr(1, 0, alike=False), Soft(False)))
    for one, other in zip(fused(x).tasks, apart(x).tasks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # a norm at rest divides by sqrt(1 + 1e-5)


@pytest.mark.parametrize("images", [False, True])
def test_a_fusion_by_hand(images: bool) -> None:
    """A 1x1 convolution of the channels of all tasks, then batch norm, with torch's own layers."""
    module, inputs = (nn.Conv2d(2, 4, 3), IMAGES) if images else (nn.Linear(5, 4), INPUTS)
    model = build(Nddr(), FromModules([module]), inputs=inputs)
    for name, parameter in model.named_parameters():
        if not name.startswith("heads"):
            parameter.data.normal_()
    x = torch.randn(1, 7, *inputs)
    maps = torch.cat(model.get_submodule("trunks.stages.0")(x.expand(3, *x.shape[1:])).unbind(), 1)
    weight, scale, shift = (model.get_parameter(f"fusions.0.{n}") for n in ("weight", "norm.weight", "norm.bias"))
    for t, features in enumerate(model(x).features):
        mapped = torch.einsum("ni...,ci->nc...", maps, weight[t])
        expected = F.batch_norm(mapped, None, None, scale[t], shift[t], training=True)
        torch.testing.assert_close(features[0], expected.flatten(1), rtol=1e-4, atol=1e-4)


def test_it_starts_at_multiples_of_the_identity() -> None:
    model = build(Nddr(0.8, 0.2))
    blocks = model.get_parameter("fusions.0.weight").detach().unflatten(2, (3, 6))
    torch.testing.assert_close(blocks[1, :, 1], 0.8 * torch.eye(6))
    torch.testing.assert_close(blocks[1, :, 2], 0.1 * torch.eye(6))
    table = model.learned()["fusion after stage 0"]
    torch.testing.assert_close(table.values[0], torch.full((3, 3), 0.1).fill_diagonal_(0.8))
    alone = build(Nddr(0.8, 0.2), tasks=TASKS[:1])
    torch.testing.assert_close(alone.get_parameter("fusions.0.weight")[0].detach(), torch.eye(6))


def test_every_entry_of_the_map_has_a_gradient_from_the_first_update() -> None:
    model = build(Nddr(alike=False))
    model(torch.randn(1, 9, 5)).tasks[0].square().sum().backward()
    gradient = model.get_parameter("fusions.1.weight").grad
    assert gradient is not None
    assert bool((gradient[0] != 0).all())
    assert not bool(gradient[1:].any())


def test_relu_after_the_norm() -> None:
    features = torch.stack(list(build(Nddr(relu=True))(torch.randn(1, 9, 5)).features))
    assert float(features.detach().min()) == 0
    assert float(torch.stack(list(build(Nddr())(torch.randn(1, 9, 5)).features)).detach().min()) < 0


@pytest.mark.parametrize("images", [False, True])
def test_the_shortcut_reads_all_stages(images: bool) -> None:
    trunk, inputs = (convolutions(), IMAGES) if images else (Mlp(6, depth=3), INPUTS)
    model = build(Nddr(shortcut=True), trunk, inputs=inputs)
    channels = [4, 3] if images else [6, 6, 6]
    weight = model.get_parameter("short.weight")
    assert weight.shape == (3, sum(channels), channels[-1])
    x = torch.randn(1, 5, *inputs)
    seen = []
    for fusion in model.get_submodule("fusions").children():
        fusion.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    features = model(x).features
    size = seen[-1].shape[3:]
    pooled = [
        s if s.shape[3:] == size else F.adaptive_avg_pool2d(s.flatten(0, 1), size).unflatten(0, (3, 5)) for s in seen
    ]
    read = torch.cat(pooled, 2)
    for t in range(3):
        expected = torch.einsum("ni...,ic->nc...", read[t], weight[t])
        expected = expected + model.get_parameter("short.bias")[t].view(1, -1, *[1] * len(size))
        torch.testing.assert_close(features[t][0], expected.flatten(1), rtol=1e-4, atol=1e-5)


def test_the_shortcut_from_maps_to_a_flat_last_stage() -> None:
    trunk = FromModules([nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)])
    model = build(Nddr(shortcut=True, stages=[0, 2]), trunk, inputs=IMAGES)
    assert model(torch.randn(1, 5, *IMAGES)).features[0].shape == (1, 5, 5)
    widening = FromModules([nn.Flatten(), nn.Linear(128, 18), nn.Unflatten(1, (2, 3, 3))])
    with pytest.raises(ValueError, match=r"`shortcut` must be able to pool"):
        build(Nddr(shortcut=True), widening, inputs=IMAGES)


def test_the_first_phase_is_trunks_apart() -> None:
    x = torch.randn(60, 5)
    labels = torch.stack([x[:, 0], x[:, 1] * x[:, 2], x[:, 3].sin()], 1)
    known = Problem.from_arrays(x.numpy(), labels.numpy(), TASKS, None)
    member = Replica(torch.arange(40), torch.arange(40, 60), (0, 1, 2), 0, 1e-2, 1e-2)
    schedule = Schedule(updates=12, every=4, batch=8, patience=999, warmup=2)
    sharing = lambda: Nddr(start="independent", shortcut=True, relu=True)  # noqa: E731
    two = Training(known, lambda: Parts(Mlp(6), sharing(), Fixed()), [member], schedule)
    apart = Training(known, lambda: Parts(Mlp(6), Soft(), Fixed(), (SoftSharing(0),)), [member], schedule)
    two.run(until=12)
    apart.run()
    for (_, _, *mine), (_, _, *theirs) in zip(two.history, apart.history, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    before = two.network.model.get_parameter("fusions.0.weight").detach().clone()
    torch.testing.assert_close(before[0, :, :6], 0.9 * torch.eye(6))
    two.run()
    assert not torch.equal(two.network.model.get_parameter("fusions.0.weight"), before)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"same": 1.5}, r"`same` must be in \[0, 1\]"),
        ({"other": -0.5}, r"`other` must be in \[0, 1\]"),
        ({"rate": -1.0}, "`rate` must not be negative"),
        ({"start": "x"}, "`start` must be None or 'independent'"),
    ],
)
def test_bad_arguments(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Nddr(**given)
