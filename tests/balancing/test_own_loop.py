"""A plain loop with torch's own layers and optimiser gives what the trainer gives, whatever the balancing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kinfolk.balancing
from kinfolk.balancing.base import Balancing, Losses
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.replicas import tick
from kinfolk.sharing import Hard
from kinfolk.sharing.base import Sharing
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

# Draws for each number of a gradient, in the order of the layer's: torch's linear layers have another than Kinfolk's.
BY_PLACE = {"GradDrop"}
FOUND = [
    v
    for v in vars(kinfolk.balancing).values()
    if isinstance(v, type) and issubclass(v, Balancing) and v.__name__ not in BY_PLACE
]
Told = tuple[Tensor, Tensor]  # losses and weights
TASKS = (
    Task("a", "regression"),
    Task("b", "multiclass", ("x", "y", "z")),
    Task("c", "binary", (0, 1)),
    Task("d", "regression", main=False),
)
TRAIN, STOP = torch.arange(30), torch.arange(30, 40)
RATE, DECAY = 0.01, 0.1
SCHEDULE = Schedule(updates=9, every=3, batch=8, patience=99, warmup=2)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Net(nn.Module):
    """What a user would write, with the weights of a network of Kinfolk's."""

    def __init__(self, model: Sharing) -> None:
        super().__init__()
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        layer = {i: linear(weights[f"trunk.{i}.0.weight"], weights[f"trunk.{i}.0.bias"]) for i in (0, 1)}
        self.trunk = nn.Sequential(layer[0], nn.SiLU(), layer[1], nn.SiLU())
        single, triple = (tuple(weights[f"heads.layers.{i}.{part}"] for part in ("weight", "bias")) for i in (0, 1))
        slices = [(single, 0), (triple, 0), (single, 1), (single, 2)]
        self.heads = nn.ModuleList([linear(*(part[at : at + 1] for part in of)) for of, at in slices])

    def losses(self, x: Tensor, targets: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        z = self.trunk(x)
        a, b, c, d = (head(z) for head in self.heads)
        return [
            F.mse_loss(a[:, 0], targets[0]),
            F.cross_entropy(b, targets[1].long()),
            F.binary_cross_entropy_with_logits(c[:, 0], targets[2]),
            F.mse_loss(d[:, 0], targets[3]),
        ], z


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    inputs, outputs = weight.shape[1:]
    made = nn.Linear(inputs, outputs)
    made.load_state_dict({"weight": weight[0].T, "bias": bias.flatten()})
    return made


def problem() -> Problem:
    g = np.random.default_rng(0)
    x = g.normal(size=(40, 5))
    labels = np.stack([x[:, 0] + x[:, 1], np.digitize(x[:, 1], [-0.5, 0.5]), x[:, 2] > 0, x[:, 3] - x[:, 0]], 1)
    return Problem.from_arrays(x, labels + np.array([1, 0, 0, 1]) * 0.3 * g.normal(size=(40, 4)), TASKS)


def forward(net: Net, method: Balancing, x: Tensor, targets: list[Tensor]) -> Losses:
    losses, z = net.losses(x, targets)
    return method.checked(losses, net.trunk.parameters(), net.trunk[2].parameters(), z)


def update(net: Net, method: Balancing, optimizer: torch.optim.Optimizer, x: Tensor, targets: list[Tensor]) -> Told:
    """One update; nearly always a single line of a loop changes."""
    if type(method).step is not Balancing.step:
        done, weights = method.step(partial(forward, net, method, x, targets), optimizer)
        return done.value.detach(), weights.detach()
    losses, z = net.losses(x, targets)
    optimizer.zero_grad()
    weights = method.backward(losses, shared=net.trunk.parameters(), last=net.trunk[2].parameters(), features=z)
    optimizer.step()
    return torch.stack(losses).detach(), weights.detach()


def own_loop(training: Training) -> tuple[Net, Balancing, Tensor]:
    data, rows = training.problem, copy.deepcopy(training.network.rows)
    net, method = Net(training.network.model), copy.deepcopy(training.network.balancing)
    groups = [{"params": list(net.parameters())}, {"params": list(method.parameters()), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, weight_decay=DECAY)
    drawn = lambda at: (data.inputs[at], [target[at] for target in data.targets])  # noqa: E731
    trained = stopped = None
    weights = []
    for epoch in range(SCHEDULE.updates // SCHEDULE.every):
        method.at_epoch(epoch, trained, stopped)
        told = []
        for number in range(epoch * SCHEDULE.every, (epoch + 1) * SCHEDULE.every):
            for group in optimizer.param_groups:
                group["lr"] = RATE * SCHEDULE.factor(number)
            told.append(update(net, method, optimizer, *drawn(rows()[0])))
            tick(method)
            tick(rows)
        with torch.no_grad():
            trained = torch.stack([losses for losses, _ in told]).mean(0)
            stopped = torch.stack(net.losses(*drawn(STOP))[0])
        weights.append(torch.stack([weight for _, weight in told]).mean(0))
    return net, method, torch.stack(weights)


@pytest.mark.parametrize("kind", FOUND, ids=lambda kind: kind.__name__)
def test_a_loop_of_ones_own_gives_what_the_trainer_gives(kind: type[Balancing]) -> None:
    one = Replica(TRAIN, STOP, (0, 1, 2, 3), 0, RATE, DECAY)
    training = Training(problem(), lambda: Parts(Mlp(8), Hard(), kind()), [one], SCHEDULE)
    net, method, weights = own_loop(training)
    training.run()
    assert not training.failures
    trained = Net(training.network.model)
    for mine, theirs in ((net, trained), (method, training.network.balancing)):
        for (name, tensor), other in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            if name == "squares":  # a number per parameter and task, in another order
                tensor, other = (one.view(len(TASKS), -1).sort().values for one in (tensor, other))
            torch.testing.assert_close(tensor, other, rtol=1e-10, atol=1e-10, msg=partial("{}: {}".format, name))
    torch.testing.assert_close(weights, torch.cat([epoch[4] for epoch in training.history]), rtol=1e-8, atol=1e-10)
