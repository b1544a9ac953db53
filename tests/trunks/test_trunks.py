"""Every trunk of the catalogue, and what is particular to each."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import kinfolk.trunks
from kinfolk import replicas
from kinfolk.catalogue import parse, text_of
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.trunks import FromModules, LeNet, Mlp, ResNet
from kinfolk.trunks.base import Trunk
from kinfolk.trunks.stages import Chain, Linear

FOUND: list[type[Trunk]] = [v for v in vars(kinfolk.trunks).values() if isinstance(v, type) and issubclass(v, Trunk)]
# How a trunk is made that cannot be made without arguments, and the shape of a row where it is not [5].
MADE: dict[str, Callable[[], Trunk]] = {
    "FromModules": lambda: FromModules([nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)]),
    "LeNet": lambda: LeNet((3, 4), kernel=3, hidden=6, shape=(1, 10, 12)),
    "ResNet": lambda: ResNet((1, 2), width=3),
}
INPUTS: dict[str, tuple[int, ...]] = {"LeNet": (120,), "ResNet": (2, 6, 5)}


@pytest.fixture(params=FOUND, ids=lambda kind: kind.__name__)
def trunk(request: pytest.FixtureRequest) -> tuple[Trunk, torch.Size]:
    name = request.param.__name__
    make = MADE.get(name) or request.param
    return make(), torch.Size(INPUTS.get(name, (5,)))


def test_stages_map_copies_to_copies(trunk: tuple[Trunk, torch.Size]) -> None:
    made, inputs = trunk
    stages = made.build(inputs)
    assert len(stages.modules) == len(stages.sizes) > 0
    x = torch.randn(1, 7, *inputs)
    for stage, size in zip(stages.modules, stages.sizes, strict=True):
        x = stage(x)
        assert x.shape[:2] == (1, 7)
        assert x[0, 0].numel() == size


def test_every_tensor_leads_with_one_copy(trunk: tuple[Trunk, torch.Size]) -> None:
    for stage in trunk[0].build(trunk[1]).modules:
        assert all(len(tensor) == 1 for _, tensor in replicas.tensors(stage))
        assert all(p.ndim for p in stage.parameters())


def test_a_stack_computes_what_its_copies_compute(trunk: tuple[Trunk, torch.Size]) -> None:
    made, inputs = trunk
    apart = [nn.Sequential(*made.build(inputs).modules) for _ in range(3)]
    together = replicas.stack([copy.deepcopy(one) for one in apart])
    x = torch.randn(3, 7, *inputs)
    for training in (True, False):
        alone = torch.cat([one.train(training)(x[i : i + 1]) for i, one in enumerate(apart)])
        torch.testing.assert_close(together.train(training)(x), alone)


def test_a_recipe_makes_new_layers_each_time(trunk: tuple[Trunk, torch.Size]) -> None:
    one, other = (nn.Sequential(*trunk[0].build(trunk[1]).modules) for _ in range(2))
    assert not {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}


@pytest.mark.parametrize("activation", ["silu", "relu", "gelu", "tanh", "sigmoid"])
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
def test_mlp_options(activation: str, norm: str | None) -> None:
    stages = Mlp(6, depth=3, activation=activation, dropout=0.2, norm=norm).build(torch.Size([2, 4])).modules
    x = nn.Sequential(*stages)(torch.randn(1, 7, 2, 4))
    assert x.shape == (1, 7, 6)


def test_mlp_is_the_network_that_it_says() -> None:
    stages = Mlp(6, depth=2, activation="tanh").build(torch.Size([4])).modules
    x = torch.randn(1, 7, 4)
    y = x
    for stage in stages:
        assert isinstance(stage, Chain)
        y = (y @ stage[0].get_parameter("weight") + stage[0].get_parameter("bias")).tanh()
    torch.testing.assert_close(nn.Sequential(*stages)(x), y)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"width": 0}, "at least 1"),
        ({"depth": 0}, "at least 1"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
        ({"activation": "swish"}, "must be one of silu"),
        ({"norm": "group"}, "must be one of layer"),
    ],
)
def test_mlp_refuses(arguments: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Mlp(**arguments)


def test_from_modules_keeps_weights_and_leaves_the_users_alone() -> None:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)).eval()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    stages = FromModules(module).build(torch.Size([5])).modules
    x = torch.randn(1, 7, 5)
    torch.testing.assert_close(stages[1].eval()(stages[0].eval()(x))[0], module(x[0]))
    stages[1].train()(stages[0](x)).sum().backward()
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert not module.training


def test_from_modules_needs_a_module() -> None:
    with pytest.raises(ValueError, match="at least one module"):
        FromModules([])


def drawn(trunk: Trunk, seed: int) -> list[torch.Tensor]:
    with replicas.own("trunk", seed):
        return [p.detach() for stage in trunk.build(torch.Size([5])).modules for p in stage.parameters()]


def test_fresh_weights_follow_the_seed() -> None:
    module = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Sequential(nn.Linear(6, 4), nn.Tanh()))
    before = {name: t.clone() for name, t in module.state_dict().items()}
    fresh, kept = FromModules(module, fresh=True), FromModules(module)
    assert all(torch.equal(*both) for both in zip(drawn(kept, 0), drawn(kept, 1), strict=True))
    assert all(torch.equal(*both) for both in zip(drawn(fresh, 0), drawn(fresh, 0), strict=True))
    assert not torch.equal(drawn(fresh, 0)[0], drawn(fresh, 1)[0])
    assert not torch.equal(drawn(fresh, 0)[-2], drawn(fresh, 1)[-2])
    assert float(drawn(fresh, 0)[-2].abs().max()) <= 6**-0.5
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_fresh_forgets_running_statistics() -> None:
    norm = nn.BatchNorm1d(5)
    norm(torch.randn(20, 5) + 3)
    assert norm.running_mean is not None
    for fresh in (False, True):
        stage = FromModules([norm], fresh).build(torch.Size([5])).modules[0]
        assert torch.equal(stage.get_buffer("running_mean")[0], norm.running_mean) is not fresh


def test_fresh_keeps_what_is_frozen() -> None:
    backbone, new = nn.Linear(5, 4).requires_grad_(False), nn.Linear(4, 3)
    weights = drawn(FromModules([backbone, new], fresh=True), 0)
    assert torch.equal(weights[0][0], backbone.weight)
    assert not torch.equal(weights[2][0], new.weight)


class Bare(nn.Module):
    """Has a parameter and no way to draw it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((5,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Drawing(Bare):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale)


class Whole(nn.Module):
    """Draws what its part cannot draw itself."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Bare()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.part.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x)


def test_fresh_needs_a_way_to_draw() -> None:
    with pytest.raises(ValueError, match=r"`reset_parameters`.*Bare has scale and none"):
        FromModules([nn.Sequential(nn.Linear(5, 5), Bare())], fresh=True)
    FromModules([Bare()])
    FromModules([Bare().requires_grad_(False)], fresh=True)
    for kind in (Drawing, Whole):
        trunk = FromModules([kind()], fresh=True)
        assert not torch.equal(drawn(trunk, 0)[0], drawn(trunk, 1)[0])
    FromModules([nn.TransformerEncoderLayer(4, 2, 8)], fresh=True)  # attention has `_reset_parameters`


def test_from_modules_refuses_tied_stages() -> None:
    layer = nn.Linear(5, 5)
    with pytest.raises(ValueError, match=r"Stages 0 and 2 share bias, weight: make them one stage"):
        FromModules([layer, nn.Tanh(), nn.Sequential(layer)])


def test_mlp_with_widths_of_its_own() -> None:
    stages = Mlp(width=[6, 3]).build(torch.Size([4]))
    assert stages.sizes == [6, 3]
    assert str(parse("mlp(width=[6, 3])")[0]) == text_of(Mlp(width=[6, 3]))
    with pytest.raises(ValueError, match="at least 1"):
        Mlp(width=[6, 0])


@pytest.mark.parametrize(("law", "gain"), [("glorot", 1.0), ("glorot_sigmoid", 4.0)])
def test_the_law_of_first_weights_holds_for_heads_too(law: str, gain: float) -> None:
    network = Hard().setup(Mlp(width=[60, 50], init=law), [Task("a", "regression")], torch.Size([40]))
    for layer, (inputs, outputs) in zip(
        (m for m in network.modules() if isinstance(m, Linear)), [(40, 60), (60, 50), (50, 1)], strict=True
    ):
        bound = gain * (6 / (inputs + outputs)) ** 0.5
        assert 0.85 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert not layer.bias.any()
