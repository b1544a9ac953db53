"""Layers over a copy axis against torch's own layers, copy by copy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kinfolk import replicas
from kinfolk.trunks.looped import Looped
from kinfolk.trunks.stages import BatchNorm, Chain, Dropout, Each, LayerNorm, Linear


def copies(make: Callable[[], nn.Module], n: int = 3) -> tuple[nn.Module, list[nn.Module]]:
    """A stack, and the same copies apart."""

    def one(i: int) -> nn.Module:
        with replicas.own("copy", i):
            module = make()
            for p in module.parameters():
                p.data = torch.randn_like(p)
            return module

    return replicas.stack([one(i) for i in range(n)]), [one(i) for i in range(n)]


@pytest.mark.parametrize("n", [1, 3])
def test_linear(n: int) -> None:
    stack, apart = copies(lambda: Linear(4, 2), n)
    x = torch.randn(n, 5, 4)
    expected = [
        F.linear(x[i], m.get_parameter("weight")[0].t(), m.get_parameter("bias")[0, 0]) for i, m in enumerate(apart)
    ]
    torch.testing.assert_close(stack(x), torch.stack(expected))


def test_linear_starts_as_torchs_does() -> None:
    mine, theirs = Linear(50, 400), nn.Linear(50, 400)
    for one, other in ((mine.weight, theirs.weight), (mine.bias, theirs.bias)):
        assert float(one.detach().abs().max()) <= 50**-0.5
        assert float(one.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.1)


@pytest.mark.parametrize("r", [1, 2])
@pytest.mark.parametrize("slices", [1, 3])
def test_fan_reads_one_input_by_many_slices(r: int, slices: int) -> None:
    made = [replicas.stack([Linear(4, 2) for _ in range(slices)]) for _ in range(r)]
    layer = replicas.stack(made)
    assert isinstance(layer, Linear)
    x = torch.randn(r, 5, 4)
    fanned = layer.fan(x)
    assert len(fanned) == slices
    each = layer(x.repeat_interleave(slices, 0)).unflatten(0, (r, slices))
    torch.testing.assert_close(torch.stack(list(fanned), 1), each)


def test_layer_norm() -> None:
    stack, apart = copies(lambda: LayerNorm(4))
    x = torch.randn(3, 5, 4)
    expected = [
        F.layer_norm(x[i], (4,), m.get_parameter("weight")[0], m.get_parameter("bias")[0]) for i, m in enumerate(apart)
    ]
    torch.testing.assert_close(stack(x), torch.stack(expected))


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_batch_norm_is_torchs(shape: tuple[int, ...]) -> None:
    stack, apart = copies(lambda: BatchNorm(4))
    theirs = [nn.BatchNorm2d(4) if shape else nn.BatchNorm1d(4) for _ in apart]
    for one, other in zip(apart, theirs, strict=True):
        other.weight.data, other.bias.data = one.get_parameter("weight")[0].data, one.get_parameter("bias")[0].data
    for _ in range(3):
        x = torch.randn(3, 6, 4, *shape)
        expected = torch.stack([other(x[i]) for i, other in enumerate(theirs)])
        torch.testing.assert_close(stack(x), expected)
        torch.testing.assert_close(stack(x), expected)  # a second look within the update is not counted
        replicas.tick(stack)
    stack.eval()
    torch.testing.assert_close(stack(x), torch.stack([other.eval()(x[i]) for i, other in enumerate(theirs)]))


def test_dropout() -> None:
    stack, apart = copies(lambda: Dropout(0.3))
    x = torch.ones(3, 200, 50)
    dropped = stack(x)
    assert torch.equal(dropped, stack(x))  # all passes of one update see one mask
    for i, one in enumerate(apart):
        assert torch.equal(dropped[i], one(x[i : i + 1])[0])
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(dropped[0], dropped[1])
    replicas.tick(stack)
    assert not torch.equal(dropped, stack(x))
    stack.eval()
    assert stack(x) is x


def test_dropout_may_differ_between_replicas() -> None:
    stack = replicas.stack([Dropout(p) for p in (0.0, 0.5, 0.9)])
    zeros = (stack(torch.ones(3, 100, 50)) == 0).float().mean((1, 2))
    assert zeros.tolist() == pytest.approx([0, 0.5, 0.9], abs=0.03)


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_dropout_refuses(probability: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        Dropout(probability)


def test_each_hides_the_copy_axis() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert Each(lambda rows: rows.flatten(1))(x).shape == (2, 3, 16)
    torch.testing.assert_close(Each(torch.tanh, elementwise=True)(x), x.tanh())


def test_chain_is_one_stage() -> None:
    x = torch.randn(1, 3, 4)
    layer = Linear(4, 2)
    torch.testing.assert_close(Chain(layer, Each(torch.tanh, elementwise=True))(x), layer(x).tanh())


class Users(nn.Module):
    """Tied weights, buffers, batch norm, a branch that depends on the data, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.forth, self.back = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.back.weight = self.forth.weight
        self.norm, self.recurrent = nn.BatchNorm1d(4), nn.GRU(4, 3, batch_first=True)
        self.register_buffer("shift", torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.back(self.forth(x).relu()) + self.get_buffer("shift"))
        x = -x if float(x.detach().sum()) > 0 else x
        return self.recurrent(x.unsqueeze(1))[0].squeeze(1)


def test_looped_is_the_users_module_copy_by_copy() -> None:
    modules = [Users() for _ in range(3)]
    stack = replicas.stack([Looped(module) for module in modules])
    names = dict(stack.named_parameters())
    assert not any("back/weight" in name for name in names)  # tied weights are one parameter
    for update in range(2):
        x = torch.randn(3, 5, 4)
        stack.zero_grad()
        stack(x).square().sum().backward()
        for i, module in enumerate(modules):
            module.zero_grad()
            module(x[i]).square().sum().backward()
            for name, parameter in module.named_parameters():
                mine = names[name.replace(".", "/")].grad
                assert mine is not None
                torch.testing.assert_close(mine[i], parameter.grad)
            for name, buffer in module.named_buffers():
                torch.testing.assert_close(stack.get_buffer(name.replace(".", "/"))[i], buffer)
        replicas.tick(stack)
        assert update < 2
    stack.eval()
    expected = [module.eval()(x[i]) for i, module in enumerate(modules)]
    torch.testing.assert_close(stack(x), torch.stack(expected))


def test_looped_draws_by_seed_and_update() -> None:
    stack = replicas.stack([Looped(nn.Dropout(0.5)) for _ in range(3)])
    x = torch.ones(3, 20, 4)
    first = stack(x)
    torch.rand(5)
    assert torch.equal(stack(x), first)
    assert not torch.equal(first[0], first[1])
    replicas.tick(stack)
    assert not torch.equal(stack(x), first)


def test_looped_refuses_another_module() -> None:
    with pytest.raises(ValueError, match="equal hyper-parameters"):
        replicas.stack([Looped(nn.Dropout(0.5)), Looped(nn.Dropout(0.2))])


def test_looped_counts_an_update_once() -> None:
    """However many forward passes an update has, and also where a module puts a new tensor in a buffer's place."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.passes = self.get_buffer("passes") + 1
            return self.norm(x)

    modules = [Counting() for _ in range(2)]
    stack = replicas.stack([Looped(copy.deepcopy(module)) for module in modules])
    for _ in range(3):
        x = torch.randn(2, 5, 4)
        expected = torch.stack([module(x[i]) for i, module in enumerate(modules)])
        for _ in range(2):
            torch.testing.assert_close(stack(x), expected)
        stack.eval()(torch.randn(2, 5, 4))
        stack.train()
        for i, module in enumerate(modules):
            for name, buffer in module.named_buffers():
                torch.testing.assert_close(stack.get_buffer(name.replace(".", "/"))[i], buffer)
        replicas.tick(stack)
    assert stack.get_buffer("passes").tolist() == [3, 3]


def test_looped_keeps_what_is_frozen_and_any_name() -> None:
    module = nn.Linear(4, 4)
    module.weight.requires_grad_(False)
    module.register_parameter("seed", nn.Parameter(torch.ones(())))
    module.register_buffer("counted", torch.zeros(()))
    stack = replicas.stack([Looped(module) for _ in range(2)])
    stack(torch.randn(2, 3, 4)).sum().backward()
    assert {name: p.requires_grad for name, p in stack.named_parameters()} == {
        "weight": False, "bias": True, "/seed": True,
    }  # fmt: skip
    assert stack.get_parameter("weight").grad is None


@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_batch_norm_of_few_rows(shape: tuple[int, ...]) -> None:
    """A single row becomes the bias and leaves no trace of a variance; its pixels are rows of their own."""
    norm = BatchNorm(4)
    x = torch.randn(1, 1, 4, *shape)
    y = norm(x)
    assert bool(y.isfinite().all())
    if shape:
        torch.testing.assert_close(y, nn.BatchNorm2d(4)(x[0])[None])
    else:
        torch.testing.assert_close(y, torch.zeros_like(y))
        torch.testing.assert_close(norm.variance, torch.full((1, 4), 0.9))
