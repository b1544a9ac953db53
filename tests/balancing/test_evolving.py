"""Evolving weights: the published schedules, Algorithm 1, and what must equal plain training."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Evolving, Fixed, Losses
from kinfolk.balancing.base import Balancing
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp

MAIN, AUXILIARY = Task("s", "regression"), Task("r", "regression", main=False)
TASKS = [MAIN, AUXILIARY]
INPUT, OUTPUT = Task("in", "regression", main=False), Task("out", "regression", main=False)


def weights(method: Evolving, epoch: int, errors: Tensor | None = None) -> list[float]:
    """The weights of the tasks in an epoch."""
    method.at_epoch(epoch, errors, errors)
    value = torch.ones(len(method.factor), requires_grad=True) * 1
    return method.backward(Losses(value)).tolist()


# ---- schedules


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("exponential", {0: 1, 1: 0.975310, 40: 0.367879, 100: 0.082085, 200: 0.006738}),
        ("stairs", {0: 1, 99: 1, 100: 0, 4999: 0}),
        ("linear", {0: 1, 250: 0.499, 499: 0, 600: 0}),
        ("abridged_linear", {0: 1, 25: 0.75, 100: 0, 101: 0}),
        ("constant", {0: 0.5, 7: 0.5}),
    ],
)
def test_published_values(schedule: str, shares: dict[int, float]) -> None:
    method = Evolving(schedule, epochs=501 if schedule != "linear" else 500).setup(TASKS)
    for epoch, share in shares.items():
        main, auxiliary = weights(method, epoch)
        assert auxiliary == pytest.approx(share, abs=1e-3 if schedule == "linear" else 1e-6)
        assert main + auxiliary == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "stairs", "linear", "abridged_linear", "exponential", "errors"])
def test_groups_sum_to_one(schedule: str) -> None:
    method = Evolving(schedule, t1=5, epochs=9, groups=[["r"], ["in", "out"], ["s"]])
    method.setup([MAIN, AUXILIARY, INPUT, OUTPUT])
    for epoch in range(10):
        main, auxiliary, first, second = weights(method, epoch, torch.ones(4))
        assert auxiliary == first == second
        assert main + auxiliary + first == pytest.approx(1, abs=1e-6)


def test_one_group_weighs_one() -> None:
    assert weights(Evolving().setup([MAIN, Task("t", "binary", (0, 1))]), 3) == [1, 1]
    assert weights(Evolving(groups=[["a"], ["s"]], windows={"a": [0, 1]}).setup([MAIN]), 3) == [1]


def test_the_last_group_may_be_any() -> None:
    method = Evolving("constant", share=0.2, groups=[["s"], ["r"]]).setup(TASKS)
    assert weights(method, 0) == pytest.approx([0.2, 0.8])


def test_a_cutoff_ends_the_tail() -> None:
    method = Evolving(cutoff=1e-4).setup(TASKS)
    assert weights(method, 368)[1] > 1e-4
    assert weights(method, 369) == [1, 0]


def test_windows_leave_the_schedule() -> None:
    tasks = [MAIN, INPUT, OUTPUT]
    method = Evolving(windows={"in": [100, 500], "out": [100, 700]}).setup(tasks)
    assert weights(method, 0) == weights(method, 100) == [1, 1, 1]
    assert weights(method, 300) == pytest.approx([1, 0.5, 2 / 3])
    assert weights(method, 600) == pytest.approx([1, 0, 1 / 6])
    assert weights(method, 700) == [1, 0, 0]
    mixed = Evolving("constant", share=0.25, windows={"out": [0, 4]}).setup(tasks)
    assert weights(mixed, 1) == [0.75, 0.25, 0.75]


def test_errors_move_lambda_only_while_the_main_task_gets_no_better() -> None:
    method = replicas.stack([Evolving("errors", sigma=2.0).setup(TASKS) for _ in range(2)])
    seen = []
    for epoch, errors in enumerate([None, [3.0, 3.0], [2.0, 3.0], [1.0, 4.0], [1.0, math.nan], [0.5, 2.0]]):
        told = None if errors is None else torch.tensor([[e, 1 / (epoch + 1)] for e in errors])
        method.at_epoch(epoch, told, told)
        seen.append(method.factor.view(2, 2)[:, 1].tolist())
    falls = [0.5 * math.exp(-n / 2) for n in range(5)]
    first, second = zip(*seen, strict=True)
    assert first == pytest.approx([falls[n] for n in (0, 0, 0, 0, 1, 1)])  # 1.0 once more is no new least error
    assert second == pytest.approx([falls[n] for n in (0, 0, 1, 2, 3, 3)])  # nor is NaN


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "cosine"}, "`schedule` must be one of constant, stairs.*Got 'cosine'"),
        ({"sigma": 0.0}, "`sigma` must be positive. Got 0.0"),
        ({"sigma": math.nan}, "`sigma` must be positive"),
        (
            {"schedule": "stairs", "t1": 11, "epochs": 10},
            r"`t1` must be at least 1 and at most `epochs` \(10\). Got 11",
        ),
        ({"schedule": "abridged_linear", "t1": 0}, "`t1` must be at least 1"),
        ({"schedule": "linear"}, "`epochs` must be at least 2, and be given for linear. Got None"),
        ({"epochs": 1}, "`epochs` must be at least 2"),
        ({"share": 1.5}, r"`share` must be in \[0, 1\].*Got 1.5"),
        ({"schedule": "errors", "share": 1.0}, "`share` must be .* for errors inside of it. Got 1.0"),
        ({"cutoff": 1.0}, r"`cutoff` must be in \[0, 1\)"),
        ({"windows": {"r": [5, 5]}}, r"`windows` must be \[start, end\].*Got \[5, 5\] for 'r'"),
        ({"windows": {"r": [5]}}, r"`windows` must be \[start, end\].*Got \[5\]"),
        ({"windows": {"r": []}}, r"`windows` must be \[start, end\].*Got \[\]"),
        ({"windows": {"r": [0, 20]}, "epochs": 10}, r"end <= `epochs` \(10\)"),
        ({"groups": [["r"], ["x"]]}, "must name tasks. Got x"),
        ({"windows": {"x": [0, 1]}}, "must name tasks. Got x"),
        ({"groups": [["r"]]}, "`groups` must name each task once: s, r. Got r"),
        ({"groups": [["r"], ["s", "r"]]}, "`groups` must name each task once"),
        ({"windows": {"r": [0, 1], "s": [0, 1]}}, "`windows` must leave a task"),
    ],
)
def test_bad_input(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evolving(**arguments).setup(TASKS)  # pyright: ignore[reportArgumentType]


# ---- Algorithm 1 in a loop of one's own


class Quadratic:
    """J_r = (w - a)^2 / 2 and J_s = (w - b)^2 / 2 of one shared number."""

    def __init__(self, w: float, a: float, b: float) -> None:
        self.w, self.a, self.b = nn.Parameter(torch.tensor(w, dtype=torch.float64)), a, b

    def __call__(self, tasks: Tensor) -> Losses:
        value = torch.stack([(self.w - self.b) ** 2 / 2, (self.w - self.a) ** 2 / 2])
        return Losses(torch.where(tasks, value, 0), tasks)


def test_a_pair_of_steps_on_the_quadratic_toy() -> None:
    toy, method = Quadratic(5.0, 1.0, -2.0), Evolving("constant", share=0.3, alternate=True).setup(TASKS).double()
    losses, shown = method.step(toy, torch.optim.SGD([toy.w], lr=0.1))
    between = 5 - 0.1 * 0.3 * (5 - 1)
    assert toy.w.item() == pytest.approx(between - 0.1 * 0.7 * (between + 2), rel=1e-6)
    assert losses.value.tolist() == pytest.approx([(between + 2) ** 2 / 2, 8], rel=1e-6)
    assert shown.tolist() == pytest.approx([0.7, 0.3])
    assert losses.seen.all()


def test_exponential_converges_to_the_main_minimum() -> None:
    toy, method = Quadratic(5.0, 1.0, -2.0), Evolving(sigma=5.0, alternate=True).setup(TASKS).double()
    optimizer = torch.optim.SGD([toy.w], lr=0.3)
    for epoch in range(150):
        method.at_epoch(epoch, None, None)
        method.step(toy, optimizer)
    assert toy.w.item() == pytest.approx(-2, abs=1e-6)


class Autoencoder(nn.Module):
    """An encoder, its decoder and an output layer; every third row has a label."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder, self.output = nn.Linear(5, 4), nn.Linear(4, 5), nn.Linear(4, 1)
        self.x, self.y, self.labelled = torch.randn(12, 5), torch.randn(12), torch.arange(12) % 3 == 0

    def closure(self, rows: Tensor) -> Callable[..., Losses]:
        def losses(tasks: Tensor | None = None) -> Losses:
            tasks = torch.ones(2, dtype=torch.bool) if tasks is None else tasks
            known = rows[self.labelled[rows]]
            present = tasks & torch.tensor([len(known) > 0, True])
            value = [torch.zeros(()), torch.zeros(())]
            if present[0]:
                value[0] = (self.output(self.encoder(self.x[known]).tanh()).squeeze(1) - self.y[known]).square().mean()
            if present[1]:
                value[1] = (self.decoder(self.encoder(self.x[rows]).tanh()) - self.x[rows]).square().mean()
            return Losses(torch.stack(value), present)

        return losses


BATCHES = [torch.arange(i, i + 4) for i in (0, 4, 8)] + [torch.tensor([1, 2, 4, 5])]  # the last without a label


def trained(
    epochs: int, method: Balancing | None = None, phases: int | None = None, kind: type = torch.optim.Adam
) -> dict[str, Tensor]:
    """Weights after training by a method, or by hand: toward the auxiliary task for so many epochs, then the main."""
    net = Autoencoder()
    optimizer = kind(net.parameters(), lr=0.1)
    for epoch in range(epochs):
        if method is not None:
            method.at_epoch(epoch, None, None)
        for rows in BATCHES:
            if method is not None:
                method.step(net.closure(rows), optimizer)
                continue
            tasks = torch.tensor([epoch >= (phases or 0), epoch < (phases or 0)])
            losses = net.closure(rows)(tasks)
            if losses.seen.any():
                optimizer.zero_grad()
                losses.value.sum().backward()
                optimizer.step()
    return {name: tensor.detach() for name, tensor in net.named_parameters()}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_stairs_are_training_in_two_phases() -> None:
    stairs = lambda: Evolving("stairs", t1=3, alternate=True).setup(TASKS)  # noqa: E731
    assert_same_bits(trained(6, stairs()), trained(6, None, phases=3))
    start, first = Autoencoder(), trained(3, stairs())
    assert torch.equal(first["output.weight"], start.output.weight)
    assert not torch.equal(first["encoder.weight"], start.encoder.weight)


def test_stairs_of_the_weighted_sum_are_too_by_plain_gradient_steps() -> None:
    method = Evolving("stairs", t1=3).setup(TASKS)
    assert_same_bits(trained(6, method, kind=torch.optim.SGD), trained(6, None, phases=3, kind=torch.optim.SGD))


def test_without_lambda_it_is_the_padded_baseline() -> None:
    """The same batches, a step for each that has a label in it, and nothing else."""
    method = Evolving("constant", share=0.0, alternate=True).setup(TASKS)
    assert_same_bits(trained(4, method), trained(4, None, phases=0))


def test_each_step_moves_its_own() -> None:
    net, seen = Autoencoder(), []
    method = Evolving("constant", alternate=True).setup(TASKS)

    class Watched(torch.optim.Adam):
        def step(self, closure: None = None) -> None:
            super().step(closure)
            seen.append(copy.deepcopy(net.state_dict()))

    optimizer = Watched(net.parameters(), lr=0.1)
    seen.append(copy.deepcopy(net.state_dict()))
    method.step(net.closure(BATCHES[0]), optimizer)
    moved = [
        {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        for before, after in itertools.pairwise(seen)
    ]
    assert moved == [{"encoder", "decoder"}, {"encoder", "output"}]


def test_a_batch_without_a_label_makes_one_step() -> None:
    net, method = Autoencoder(), Evolving("constant", alternate=True).setup(TASKS)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    start = net.output.weight.detach().clone()
    losses, shown = method.step(net.closure(BATCHES[3]), optimizer)
    assert torch.equal(net.output.weight, start)
    assert losses.seen.tolist() == [False, True]
    assert shown.tolist() == [0, 0.5]


def test_a_task_that_weighs_nothing_is_absent() -> None:
    net, method = Autoencoder(), Evolving(alternate=True).setup(TASKS)  # exponential begins at (0, 1)
    losses, _ = method.step(net.closure(BATCHES[0]), torch.optim.SGD(net.parameters(), lr=0.1))
    assert losses.seen.tolist() == [False, True]


# ---- in the loop

SCHEDULE = Schedule(updates=12, every=2, batch=6, patience=99, warmup=2)


def problem() -> Problem:
    g = np.random.default_rng(0)
    x = g.normal(size=(40, 3))
    labels = np.stack([x[:, 0] + x[:, 1], x[:, 2] > 0, x[:, 1]], 1)
    labels[g.random(40) < 0.7, 0] = np.nan
    return Problem.from_arrays(x, labels, [MAIN, Task("c", "binary", (0, 1)), AUXILIARY])


def training(make: Callable[[], Balancing], seeds: list[int]) -> Training:
    members = [Replica(torch.arange(s, 30), torch.arange(30, 40), (0, 1, 2), s, 1e-2 * (1 + s), 0.1) for s in seeds]
    return Training(problem(), lambda: Parts(Mlp(6, dropout=0.1), Hard(), make()), members, SCHEDULE)


METHODS: dict[str, Callable[[], Balancing]] = {
    "alternate": lambda: Evolving(sigma=2.0, alternate=True),
    "stairs": lambda: Evolving("stairs", t1=2, alternate=True),
    "errors": lambda: Evolving("errors", sigma=2.0, alternate=True, groups=[["r"], ["c"], ["s"]]),
    "windows": lambda: Evolving(windows={"r": [1, 3]}, alternate=True),
    "weighted sum of errors": lambda: Evolving("errors", sigma=2.0),
}


@pytest.fixture(params=METHODS)
def make(request: pytest.FixtureRequest) -> Callable[[], Balancing]:
    return METHODS[request.param]


@pytest.fixture
def double() -> None:
    torch.set_default_dtype(torch.float64)


@pytest.fixture(autouse=True)
def single_afterwards() -> object:
    yield
    torch.set_default_dtype(torch.float32)


def test_alone_equals_stack(make: Callable[[], Balancing], double: None) -> None:
    together = training(make, [0, 1])
    together.run()
    for i in range(2):
        alone = training(make, [i])
        alone.run()
        for (_, _, *mine), (_, _, *theirs) in zip(together.history, alone.history, strict=True):
            for one, other in zip(mine, theirs, strict=True):
                torch.testing.assert_close(one[i], other[0], rtol=1e-8, atol=1e-10, equal_nan=True)


def test_resumed_equals_uninterrupted(make: Callable[[], Balancing]) -> None:
    whole, first, again = (training(make, [0, 1]) for _ in range(3))
    whole.run()
    first.run(until=6)
    again.load({name: tensor.clone() for name, tensor in first.state().items()})
    again.run()
    for name, tensor in whole.state().items():
        assert torch.equal(tensor.nan_to_num(), again.state()[name].nan_to_num()), name


def test_main_heads_keep_still_in_the_first_stair() -> None:
    one = training(METHODS["stairs"], [0])
    start = [tensor.detach().clone() for tensor in one.network.model.parameters()]
    one.run(until=4)
    still = 0
    for i, (tensor, before) in enumerate(zip(one.network.model.parameters(), start, strict=True)):
        moved, serves = (tensor != before).flatten(1).any(1), one.network.optimizer.reach(i)
        assert serves is not None
        assert torch.equal(moved, serves[:, 2])
        still += int((~moved).sum())
    assert still == 4  # weights and biases of two heads
    one.run()
    assert all(
        bool((tensor != before).any()) for tensor, before in zip(one.network.model.parameters(), start, strict=True)
    )


def test_lambda_of_zero_is_training_the_main_tasks_alone(double: None) -> None:
    """The auxiliary task changes nothing, though the batches hold its rows."""
    plain = training(lambda: Evolving("constant", share=0.0, alternate=True), [1])
    plain.run()
    fixed = training(lambda: Fixed({"r": 0.0}), [1])
    fixed.run()
    for (_, _, *mine), (_, _, *theirs) in zip(plain.history, fixed.history, strict=True):
        torch.testing.assert_close(mine[1][:, :2], theirs[1][:, :2])  # on the stop rows
