"""The Gramian engine against the Jacobian that is written down: every way, and what ends in ``.grad``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import layers, passes, rows
from kinfolk.balancing.base import Losses
from kinfolk.balancing.gramian import Gramian, Jacobian
from kinfolk.balancing.passes import Passes
from kinfolk.data.tasks import Task
from kinfolk.sharing import Cascade, Hard
from kinfolk.sharing.base import Outputs, Sharing
from kinfolk.trunks import Mlp

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "regression"))
NAMES = [task.name for task in TASKS]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Fit(Gramian):
    """Weights that are a function of the Gramian and not alike; keeps what it was given."""

    native = "sum"
    given: Tensor

    def weights(self, gramian: Tensor, present: Tensor) -> Tensor:
        assert not gramian.requires_grad
        self.given = gramian
        return self.solve_present(gramian, present, lambda g: 1 + g.sum(-1) / g.abs().sum((-1, -2)).unsqueeze(-1))


def fit(**given: Any) -> Fit:
    method = Fit(**given)
    method.setup(TASKS)
    return method


class Mean(Gramian):
    native = "mean"

    def weights(self, gramian: Tensor, present: Tensor) -> Tensor:
        return self.solve_present(gramian, present, lambda g: torch.full_like(g[..., 0], 1 / g.shape[-1]))


class Norm(Gramian):
    native = "own"

    def weights(self, gramian: Tensor, present: Tensor) -> Tensor:
        return gramian.diagonal(dim1=-2, dim2=-1).rsqrt()


class Signs(Jacobian):
    def combine(self, jacobian: Tensor, present: Tensor) -> Tensor:
        return jacobian.sign().sum(1)


# ---- a network of one's own


class Net(nn.Module):
    """A trunk that is shared and heads that are not."""

    trunk: Any

    def __init__(self, trunk: nn.Module, width: int, deep: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        above = [nn.Sequential(nn.Linear(width, 5), nn.Tanh()) if deep else nn.Identity() for _ in TASKS]
        self.heads = nn.ModuleList([nn.Sequential(one, nn.Linear(5 if deep else width, 2)) for one in above])

    def losses(self, x: Tensor) -> list[Tensor]:
        return self.read([self.trunk(x)] * len(TASKS))

    def read(self, features: list[Tensor]) -> list[Tensor]:
        return [(head(z) - i).square().mean() for i, (head, z) in enumerate(zip(self.heads, features, strict=True))]


def mlp(rows_: int = 4, inputs: int = 12) -> tuple[Any, Tensor]:
    """Fewer rows than inputs: its layers can be done from their outputs."""
    return nn.Sequential(nn.Linear(inputs, 11), nn.Tanh(), nn.Linear(11, 10), nn.Tanh()), torch.randn(rows_, inputs)


def jacobian_of(losses: list[Tensor], parameters: list[Any]) -> Tensor:
    """Written down: one row per task."""
    found = [torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True) for one in losses]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in found])


def gradients_of(net: nn.Module) -> list[Tensor]:
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    return found


def assert_right(method: Fit, net: Net, x: Tensor, by: list[Tensor], **given: Any) -> None:
    """The Gramian is that of the gradients of ``by``, the trunk's gradient is weighted and the heads' is not."""
    losses = given.pop("losses", None) or net.losses(x)
    jacobian = jacobian_of(losses, given.pop("wanted", by))
    trunk, heads = [[p for p in part.parameters() if p.requires_grad] for part in (net.trunk, net.heads)]
    seen = method.weights((jacobian @ jacobian.mT).unsqueeze(0), torch.ones(1, 3).bool())[0]
    weighted = torch.stack([w * one for w, one in zip(seen, losses, strict=True)]).sum()
    wanted = [*torch.autograd.grad(weighted, trunk, retain_graph=True)] if trunk else []
    wanted += torch.autograd.grad(torch.stack(losses).sum(), heads, retain_graph=True)
    weights = method.backward(torch.stack(losses), **given)
    torch.testing.assert_close(method.given[0], jacobian @ jacobian.mT)
    torch.testing.assert_close(weights, seen)
    for p, one in zip([*trunk, *heads], wanted, strict=True):
        torch.testing.assert_close(p.grad, one)
    net.zero_grad()


# ---- at the shared parameters


def test_rows_equal_the_jacobian() -> None:
    torch.manual_seed(0)
    trunk, x = mlp(rows_=40)
    net = Net(trunk, 10)
    assert_right(fit(), net, x, list(trunk.parameters()), shared=trunk.parameters())


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each pass does from the gradients at their outputs, where that saves whatever little."""
    counted: list[int] = []
    monkeypatch.setattr(layers.Layer, "saved", lambda layer, tasks: 1e9)
    before = Passes._layers

    def counting(self: Passes, limit: float) -> Any:
        some = before(self, limit)
        counted.append(len(some))
        return some

    monkeypatch.setattr(Passes, "_layers", counting)
    return counted


@pytest.mark.parametrize("rows_", [4, 30])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_need_no_rows(found: list[int], rows_: int, bias: bool) -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(12, 11, bias), nn.LayerNorm(11), nn.Tanh(), nn.Linear(11, 10, bias), nn.Tanh())
    x = torch.randn(rows_, 12)
    assert_right(fit(), Net(trunk, 10), x, list(trunk.parameters()), shared=trunk.parameters())
    assert found == [2]


def test_layers_are_chosen_by_what_they_save() -> None:
    """Few rows and many tasks: outputs. Many rows, or few tasks, whose rows then are the update: rows."""

    def saved(rows_: int, tasks: int) -> float:
        node = (torch.zeros(1, requires_grad=True) * 1).grad_fn
        assert node is not None
        return layers.Layer(node, 0, None, torch.zeros(1, rows_, 1024), 1024, False).saved(tasks)

    assert saved(600, 8) > 0 > saved(600, 2)
    assert saved(4096, 40) < 0 < saved(64, 8)


def test_tied_weights(found: list[int]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(10, 10)
    trunk, x = nn.Sequential(nn.Linear(12, 10), nn.Tanh(), layer, nn.Tanh(), layer), torch.randn(4, 12)
    assert_right(fit(), Net(trunk, 10), x, list(trunk.parameters()), shared=trunk.parameters())
    assert found == [1]


def test_a_weight_that_something_else_reads_is_done_by_rows(found: list[int]) -> None:
    torch.manual_seed(0)
    trunk, x = mlp()
    net = Net(trunk, 10)
    losses = [one + t * trunk[0].weight.square().sum() for t, one in enumerate(net.losses(x))]
    assert_right(fit(), net, x, list(trunk.parameters()), losses=losses, shared=trunk.parameters())
    assert found == [1]


@pytest.mark.parametrize("ghost", [True, False])
def test_frozen_parameters_are_left_out(request: pytest.FixtureRequest, ghost: bool) -> None:
    if ghost:
        request.getfixturevalue("found")
    torch.manual_seed(0)
    trunk, x = mlp()
    trunk[0].requires_grad_(False)
    trunk[2].bias.requires_grad_(False)
    net = Net(trunk, 10)
    assert_right(fit(), net, x, [trunk[2].weight], shared=trunk.parameters())
    with pytest.raises(ValueError, match=r"must require a gradient. All that were given are frozen"):
        fit().backward(torch.stack(net.losses(x)), shared=trunk[0].parameters())


@pytest.mark.parametrize("memory", [1e-3, 2e-3, 1e-6])
def test_the_memory_bound_only_makes_more_passes(memory: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    trunk, x = mlp(rows_=40)
    held: list[int] = []
    empty = passes.empty
    monkeypatch.setattr(passes, "empty", lambda *args: held.append(empty(*args).nbytes) or empty(*args))
    assert_right(fit(memory=memory), Net(trunk, 10), x, list(trunk.parameters()), shared=trunk.parameters())
    assert len(held) > 1
    largest = max(p.nbytes for p in trunk.parameters()) * 3
    assert max(held) <= max(memory * 2**20, largest)


def test_layers_within_the_memory_bound(found: list[int]) -> None:
    torch.manual_seed(0)
    trunk, x = mlp()
    assert_right(fit(memory=1e-6), Net(trunk, 10), x, list(trunk.parameters()), shared=trunk.parameters())
    assert found == [2]


def test_long_rows_are_multiplied_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", 7)
    x, y = torch.randn(2, 3, 30), torch.randn(2, 4, 30)
    torch.testing.assert_close(rows.inner(x), x @ x.mT)
    torch.testing.assert_close(rows.inner(x, y), x @ y.mT)
    torch.testing.assert_close(rows.inner_of([x[:, i] for i in range(3)], 2), x @ x.mT)


def test_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    trunk, x = mlp()
    net, method = Net(trunk, 10), fit()
    for inside in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            losses = net.losses(x)
            if inside:
                method.backward(torch.stack(losses), shared=trunk.parameters())
        if not inside:
            method.backward(torch.stack(losses), shared=trunk.parameters())
        assert method.given.dtype == torch.float32
        jacobian = jacobian_of(net.losses(x), list(trunk.parameters()))
        torch.testing.assert_close(method.given[0], jacobian @ jacobian.mT, rtol=0.05, atol=0.02)
        method.given = torch.zeros(1, 3, 3)


def test_float32_networks_are_close() -> None:
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    trunk, x = mlp()
    assert_right(fit(), Net(trunk, 10), x, list(trunk.parameters()), shared=trunk.parameters())


# ---- at the features


@pytest.mark.parametrize("deep", [False, True], ids=["linear", "deep"])
@pytest.mark.parametrize("views", [False, True])
def test_features(deep: bool, views: bool) -> None:
    torch.manual_seed(0)
    trunk, x = mlp()
    net = Net(trunk, 10, deep)
    z = trunk(x)
    read = [z.view_as(z) for _ in TASKS] if views else [z] * len(TASKS)
    losses = net.read(read)
    method = fit(at="features")
    wanted = torch.stack(
        [torch.autograd.grad(one, f, retain_graph=True)[0].flatten() for one, f in zip(losses, read, strict=True)]
    )
    assert_right(method, net, x, [], losses=losses, features=read, wanted=[z])
    torch.testing.assert_close(method.given[0], wanted @ wanted.mT)


def test_one_tensor_of_features_is_enough() -> None:
    torch.manual_seed(0)
    trunk, x = mlp()
    net = Net(trunk, 10)
    z = trunk(x)
    assert_right(fit(at="features"), net, x, [], losses=net.read([z] * 3), features=z, wanted=[z])


def test_a_parameter_above_and_below_the_features() -> None:
    """It gets the whole of its weighted gradient."""
    torch.manual_seed(0)
    trunk, x = mlp()
    net = Net(trunk, 10)
    z = trunk(x)
    losses = [one + (t + 1) * trunk[0].weight.square().mean() for t, one in enumerate(net.read([z] * 3))]
    assert_right(fit(at="features"), net, x, [], losses=losses, features=z, wanted=[z])


def test_features_that_will_not_do() -> None:
    trunk, x = mlp()
    net, method = Net(trunk, 10), fit(at="features")
    z = trunk(x)
    with pytest.raises(ValueError, match=r"must require a gradient. Those of 'a' do not"):
        method.backward(net.read([z.detach()] * 3), features=z.detach())
    with pytest.raises(ValueError, match=r"features that all tasks read. Those of 'b' are others"):
        method.backward(net.read([z] * 3), features=[z, z.clone(), z])
    with pytest.raises(ValueError, match=r"depend on the features. That of 'b' does not"):
        method.backward([*net.read([z] * 3)[:1], trunk[0].weight.sum(), z.sum()], features=z)
    with pytest.raises(ValueError, match=r"needs features"):
        method.backward(net.read([z] * 3))


def test_a_loss_that_does_not_depend_on_what_is_shared() -> None:
    trunk, x = mlp()
    net, method = Net(trunk, 10), fit()
    for stranger in (net.heads[1](torch.randn(4, 10)).sum(), torch.ones(())):
        losses = [net.losses(x)[0], stranger, net.losses(x)[2]]
        with pytest.raises(ValueError, match=r"depend on the shared parameters. That of 'b' does not"):
            method.backward(losses, shared=trunk.parameters())


# ---- Kinfolk's own networks, replicas and absent tasks


def stacked(kind: Callable[[], Sharing], seeds: range, norm: str | None = None) -> Sharing:
    made = []
    for seed in seeds:
        with replicas.own("replica", seed):
            made.append(kind().setup(Mlp(6, 2, norm=norm, dropout=0.3), TASKS, torch.Size([7])))
    return replicas.stack(made)


def value_of(outputs: Outputs, only: Tensor | None = None) -> Tensor:
    value = torch.stack([(one - i).square().mean((1, 2)) for i, one in enumerate(outputs.tasks)], -1)
    return value if only is None else torch.where(only, value, 0)


def losses_of(model: Sharing, x: Tensor, only: Tensor | None = None, told: bool = True) -> Losses:
    outputs = model(x)
    shared = [p for name, p in model.named_parameters() if name.startswith("trunk")]
    told_of = (outputs.tasks, outputs.heads) if told else ((), ())
    return Losses(value_of(outputs, only), only, None, shared, (), outputs.features, *told_of)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("at", ["parameters", "features"])
@pytest.mark.parametrize("kind", [Hard, Cascade])
def test_replicas_each_have_their_own(kind: type[Sharing], at: str, norm: str, told: bool) -> None:
    """Batch norm and dropout are as in the one forward pass; what is known of heads changes nothing."""
    torch.manual_seed(0)
    x = torch.randn(2, 9, 7)
    only = torch.tensor([[True, True, True], [True, False, True]])
    model = stacked(kind, range(2), norm)
    method = replicas.stack([fit(at=at) for _ in range(2)])
    weights = method.backward(losses_of(model, x, only, told))
    assert weights[1, 1] == 0
    together = gradients_of(model)
    for seed in range(2):
        alone, own = stacked(kind, range(seed, seed + 1), norm), fit(at=at)
        losses = losses_of(alone, x[seed : seed + 1], only[seed : seed + 1])
        by = losses.shared if at == "parameters" else [losses.features[0]]
        jacobian = jacobian_of([losses.value[0, t] for t in range(3)], list(by))
        assert torch.equal(own.backward(losses)[0] > 0, only[seed])
        torch.testing.assert_close(own.given[0], jacobian @ jacobian.mT)
        torch.testing.assert_close(method.given[seed], own.given[0])
        for one, other in zip(gradients_of(alone), together, strict=True):
            torch.testing.assert_close(one, other.unflatten(0, (2, -1))[seed])


def test_replicas_by_layers(found: list[int]) -> None:
    torch.manual_seed(0)
    x, model = torch.randn(2, 9, 7), stacked(Hard, range(2))
    method = replicas.stack([fit() for _ in range(2)])
    method.backward(losses_of(model, x))
    by_layers, given = gradients_of(model), method.given
    assert found == [2]
    losses = losses_of(model, x)
    for r in range(2):
        jacobian = torch.stack(
            [
                torch.cat([g[r].flatten() for g in torch.autograd.grad(losses.value[r, t], losses.shared, None, True)])
                for t in range(3)
            ]
        )
        torch.testing.assert_close(given[r], jacobian @ jacobian.mT)
    weights = method.weights(given, torch.ones(2, 3).bool())
    wanted = torch.autograd.grad((losses.value * weights).sum(), losses.shared)
    for p, one in zip(losses.shared, wanted, strict=True):
        at = next(i for i, other in enumerate(model.parameters()) if other is p)
        torch.testing.assert_close(by_layers[at], one)


def test_an_absent_task_keeps_what_it_had() -> None:
    trunk, x = mlp()
    net, method = Net(trunk, 10), fit(every=2)
    only = torch.tensor([True, False, True])
    value = torch.where(only, torch.stack(net.losses(x)), 0)
    weights = method.backward(Losses(value, only, shared=list(trunk.parameters())))
    assert weights.tolist()[1] == 0
    assert method.kept[1] == 1
    assert method.cosines[1].tolist() == [0, 1, 0]
    assert method.backward(net.losses(x), shared=trunk.parameters()).tolist() == method.kept.tolist()


# ---- weights


def test_every_keeps_the_weights() -> None:
    torch.manual_seed(0)
    trunk, x = mlp()
    net, method = Net(trunk, 10), fit(every=3)
    first = torch.zeros(3)
    for update in range(7):
        method.given = torch.zeros(())
        weights = method.backward(
            [(1 + update) ** t * one for t, one in enumerate(net.losses(x))], shared=trunk.parameters()
        )
        assert (method.given.ndim == 3) == (update % 3 == 0)
        first = weights if update == 0 else first
        assert torch.equal(weights, first) == (update < 3)
        again = net.losses(x)
        by = [(1 + update) ** t * one for t, one in enumerate(again)]
        wanted = torch.autograd.grad((weights * torch.stack(by)).sum(), list(trunk.parameters()))
        for p, one in zip(trunk.parameters(), wanted, strict=True):
            torch.testing.assert_close(p.grad, one)
        net.zero_grad()


def test_reductions() -> None:
    trunk, x = mlp()
    net = Net(trunk, 10)

    def weights(method: Gramian, only: Tensor) -> list[float]:
        value = torch.where(only, torch.stack(net.losses(x)), 0)
        return method.setup(TASKS).backward(Losses(value, only, shared=list(trunk.parameters()))).tolist()

    two = torch.tensor([True, False, True])
    assert weights(Mean(), two) == [0.5, 0, 0.5]
    assert weights(Mean(reduction="mean"), two) == [0.5, 0, 0.5]
    assert weights(Mean(reduction="sum"), two) == [1, 0, 1]
    native = weights(Fit(), two)
    assert weights(Fit(reduction="sum"), two) == native
    assert weights(Fit(reduction="mean"), two) == pytest.approx([w / 2 for w in native])
    assert fit(reduction="mean").kept.tolist() == pytest.approx([1 / 3] * 3)


def test_solve_present_sees_the_present_alone() -> None:
    method = fit()
    g = torch.arange(36.0).view(4, 3, 3)
    present = torch.tensor([[True, False, True], [False, False, False], [True, True, True], [True, False, True]])
    seen: list[Tensor] = []

    def solve(part: Tensor) -> Tensor:
        seen.append(part)
        return part.diagonal(dim1=-2, dim2=-1) + 1

    found = method.solve_present(g, present, solve)
    assert found.tolist() == [[1, 0, 9], [0, 0, 0], [19, 23, 27], [28, 0, 36]]
    assert sorted(tuple(part.shape) for part in seen) == [(1, 3, 3), (2, 2, 2)]


def test_cosines_are_learned() -> None:
    p = nn.Parameter(torch.zeros(2))
    method = fit()
    method.backward([p[0], 3 * p.sum(), -2 * p[0]], shared=[p])
    quantity = method.learned()["gradient cosines"]
    assert quantity.lines == quantity.columns == ("a", "b", "c")
    half = 0.5**0.5
    torch.testing.assert_close(quantity.values, torch.tensor([[[1, half, -1], [half, 1, -half], [-1, -half, 1]]]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"at": "heads"}, "`at` must be one of parameters, features. Got 'heads'"),
        ({"every": 0}, "`every` must be at least 1. Got 0"),
        ({"reduction": "max"}, "`reduction` must be one of native, sum, mean. Got 'max'"),
        ({"memory": 0.0}, "`memory` must be positive. Got 0.0"),
    ],
)
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Fit(**given)
    with pytest.raises(ValueError, match=r"`reduction` must be native: the rule has a scale of its own. Got 'sum'"):
        Norm(reduction="sum")


# ---- Jacobians, penalties, small batches


def test_jacobian_rules() -> None:
    torch.manual_seed(0)
    trunk, x = mlp()
    net, method = Net(trunk, 10), Signs().setup(TASKS)
    losses = net.losses(x)
    jacobian = jacobian_of(losses, list(trunk.parameters()))
    heads = torch.autograd.grad(torch.stack(losses).sum(), list(net.heads.parameters()), retain_graph=True)
    weights = method.backward(losses, shared=trunk.parameters())
    update = jacobian.sign().sum(0)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in trunk.parameters()]), update)
    torch.testing.assert_close([p.grad for p in net.heads.parameters()], list(heads))
    torch.testing.assert_close(weights, torch.linalg.lstsq(jacobian.mT, update.unsqueeze(-1)).solution.squeeze(-1))


@pytest.mark.parametrize("way", ["rows", "layers", "features", "kept"])
def test_the_penalty_is_added_once(way: str, request: pytest.FixtureRequest) -> None:
    if way == "layers":
        request.getfixturevalue("found")
    torch.manual_seed(0)
    trunk, x = mlp()
    net = Net(trunk, 10)
    method = fit(at="features" if way == "features" else "parameters", every=2)
    both = []
    for strength in (0.0, 1.0):
        method.made.fill_(0)
        for _ in range(2 if way == "kept" else 1):
            net.zero_grad()
            z = trunk(x)
            losses = Losses(torch.stack(net.read([z] * 3)), shared=list(trunk.parameters()), features=[z] * 3)
            losses.penalty = strength * (sum(p.square().sum() for p in net.parameters()) + z.square().sum())
            method.backward(losses)
        both.append(gradients_of(net))
    z = trunk(x)
    alone = torch.autograd.grad(sum(p.square().sum() for p in net.parameters()) + z.square().sum(), [*net.parameters()])
    for without, with_it, one in zip(*both, alone, strict=True):
        torch.testing.assert_close(with_it - without, one)


@pytest.mark.parametrize("kind", [Fit, Signs])
def test_small_batches_gathered_are_the_whole_batch(kind: type[Fit] | type[Signs]) -> None:
    torch.manual_seed(0)
    trunk, x = mlp(rows_=8)
    net, method = Net(trunk, 10), kind()
    method.setup(TASKS)
    weights = method.backward(net.losses(x), shared=trunk.parameters())
    whole = gradients_of(net)
    for part in x.split(2):
        method.gather([one / 4 for one in net.losses(part)], shared=trunk.parameters())
    torch.testing.assert_close(method.release(), weights)
    for one, other in zip(gradients_of(net), whole, strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="must be gathered before it is released"):
        method.release()


def test_small_batches_need_the_jacobian() -> None:
    trunk, x = mlp()
    net = Net(trunk, 10)
    with pytest.raises(ValueError, match=r"the Gramian of a sum is not the sum of Gramians. They take 0 MiB"):
        fit(memory=1e-3).gather(net.losses(x), shared=trunk.parameters())
    with pytest.raises(ValueError, match="`at` must be parameters where small batches are gathered"):
        fit(at="features").gather(net.losses(x), shared=trunk.parameters())
