"""What every balancing of the catalogue keeps, by existing: in a user's own loop, and with replicas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import kinfolk.balancing
from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.tasks import Task

TASKS = (Task("a", "regression"), Task("b", "multiclass", ("x", "y", "z")), Task("c", "binary", (0, 1)))
FOUND: list[type[Balancing]] = [
    v for v in vars(kinfolk.balancing).values() if isinstance(v, type) and issubclass(v, Balancing)
]
UPDATES = 4


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=FOUND, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Balancing]:
    return request.param


class Net(nn.Module):
    """A user's own network: a trunk and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(5, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 2) for _ in TASKS])

    def losses(self, x: Tensor, present: Tensor | None = None, replica: bool = False) -> Losses:
        z = self.trunk(x).tanh()
        value = torch.stack([(head(z) - i).square().mean() for i, head in enumerate(self.heads)])
        value = value if present is None else torch.where(present, value, 0)
        last, features = list(self.trunk.parameters()), [z] * len(TASKS)
        if replica:
            present = None if present is None else present.unsqueeze(0)
            value, features = value.unsqueeze(0), [feature.unsqueeze(0) for feature in features]
        return Losses(value, present, None, last, last, features)


def own_loop(
    kind: type[Balancing], present: Tensor | None = None, replica: bool = False
) -> tuple[Net, Balancing, list[Tensor]]:
    torch.manual_seed(0)
    net, balancing = Net(), kind().setup(TASKS)
    optimizer = torch.optim.SGD([*net.parameters(), *balancing.parameters()], lr=0.1)
    x = torch.randn(9, 5)
    weights = []
    for epoch in range(UPDATES):
        balancing.at_epoch(epoch, None, None)
        losses, weight = balancing.step(lambda: net.losses(x, present, replica), optimizer)
        assert losses.value.shape == weight.shape
        weights.append(weight.detach().flatten())
    return net, balancing, weights


def test_has_defaults_and_sets_itself_up(kind: type[Balancing]) -> None:
    balancing = kind()
    assert balancing.setup(TASKS) is balancing
    assert set(balancing.needs) <= {"last", "shared", "features"}


def test_overrides_one_of_total_and_gradients(kind: type[Balancing]) -> None:
    """What ``backward`` does. Beside it a method may override ``step``, where an update is more than one pass."""
    overridden = [getattr(kind, name) is not getattr(Balancing, name) for name in ("total", "gradients")]
    assert sum(overridden) == 1


def test_state_leads_with_the_task_axis(kind: type[Balancing]) -> None:
    balancing = kind().setup(TASKS)
    for name, tensor in [*balancing.named_parameters(), *balancing.named_buffers()]:
        assert tensor.ndim == 0 or len(tensor) in (1, len(TASKS)), name


def test_every_parameter_moves_in_a_users_own_loop(kind: type[Balancing]) -> None:
    torch.manual_seed(0)
    start = {name: p.detach().clone() for name, p in Net().named_parameters()}
    net, _, weights = own_loop(kind)
    assert all(not torch.equal(p, start[name]) for name, p in net.named_parameters())
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert all(bool(weight.isfinite().all()) for weight in weights)


def test_the_replica_axis_is_optional(kind: type[Balancing]) -> None:
    plain, replica = own_loop(kind), own_loop(kind, replica=True)
    for one, other in zip(plain[0].parameters(), replica[0].parameters(), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(plain[2], replica[2], strict=True):
        torch.testing.assert_close(one, other)


def test_present_is_all_by_default(kind: type[Balancing]) -> None:
    plain, told = own_loop(kind), own_loop(kind, torch.ones(len(TASKS), dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(plain[0].parameters(), told[0].parameters(), strict=True))


def test_an_absent_task_moves_nothing_of_its_own(kind: type[Balancing]) -> None:
    torch.manual_seed(0)
    start = {name: p.detach().clone() for name, p in Net().named_parameters()}
    net, balancing, _ = own_loop(kind, torch.tensor([True, False, True]))
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, start[name])}
    assert moved == {name for name in start if not name.startswith("heads.1.")}
    fresh = dict(kind().setup(TASKS).named_parameters())
    for name, p in balancing.named_parameters():
        assert len(p) == len(TASKS)
        assert p[1] == fresh[name][1], name


def test_the_penalty_is_in_the_same_pass(kind: type[Balancing]) -> None:
    gradients = []
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        net, balancing, x = Net(), kind().setup(TASKS), torch.randn(9, 5)
        losses = net.losses(x)
        losses.penalty = strength * net.trunk.weight.square().sum()
        balancing.backward(losses)
        assert net.trunk.weight.grad is not None
        gradients.append(net.trunk.weight.grad)
    torch.testing.assert_close(gradients[1] - gradients[0], 2 * net.trunk.weight.detach())


def test_replicas_do_not_mix(kind: type[Balancing]) -> None:
    """The weights of one replica do not depend on the losses of another."""
    from kinfolk import replicas

    def weights(values: Tensor) -> Tensor:
        balancing = replicas.stack([kind().setup(TASKS) for _ in range(len(values))])
        last = nn.Parameter(torch.ones(len(values), 2))
        value = values * last.sum(1, keepdim=True)
        return balancing.backward(Losses(value, None, None, [last], [last], [value.unsqueeze(1)] * len(TASKS)))

    both = weights(torch.tensor([[1.0, 2.0, 3.0], [100.0, 1.0, 0.1]]))
    torch.testing.assert_close(both[:1], weights(torch.tensor([[1.0, 2.0, 3.0]])))
