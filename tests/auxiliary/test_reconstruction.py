"""Reconstruction: what it computes, whom it trains, and that it is one task among others to all else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kinfolk.balancing
import kinfolk.sharing
from kinfolk import replicas
from kinfolk.auxiliary import Reconstruction
from kinfolk.auxiliary.base import WithAuxiliary, tasks_of, with_tasks
from kinfolk.balancing import Evolving, Fixed
from kinfolk.balancing.base import Balancing
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.evidence.arms import NetworkArm
from kinfolk.exceptions import InputError
from kinfolk.sharing import CrossStitch, Hard, Independent
from kinfolk.sharing.base import Sharing, reach
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.optim import Sgd
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import Mlp


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """What is equal but for rounding is then equal to 8 digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


DIGIT, PASSES = Task("digit", "multiclass", (0, 1, 2)), Task("passes", "binary", (0, 1))
LAYERS = {"layerwise": True, "tied": True, "corruption": 0.3, "cost": "cross_entropy", "reduction": "sum"}
KINDS: list[dict[str, Any]] = [
    {},
    {"corruption": 0.3},
    {"layerwise": True, "corruption": [0.2, 0.0]},
    LAYERS,
    LAYERS | {"stop_gradient": False},
]


def small(rows: int = 40, missing: float = 0.5) -> Problem:
    g = np.random.default_rng(0)
    x = g.random((rows, 6))
    labels = np.stack([np.floor(3 * x[:, 0]), x[:, 1] > 0.5], 1)
    labels[g.random(labels.shape) < missing] = np.nan
    return Problem.from_arrays(x, labels, [DIGIT, PASSES])


def network(sharing: Sharing | None = None, widths: tuple[int, ...] = (5, 4), **arguments: Any) -> WithAuxiliary:
    auxiliary = Reconstruction(**arguments)
    made = WithAuxiliary(sharing or Hard(), [auxiliary])
    trunk = Mlp(width=widths, activation="sigmoid", init="glorot_sigmoid")
    return made.setup(trunk, (DIGIT, PASSES, auxiliary.task), torch.Size([6]))


def parts(balancing: Callable[[], Balancing] = Fixed, sharing: type[Sharing] = Hard, **arguments: Any) -> Parts:
    trunk = Mlp(width=[5, 4], activation="sigmoid", init="glorot_sigmoid")
    made = WithAuxiliary(sharing(), [Reconstruction(**arguments)])
    return Parts(trunk, made, balancing(), optimizer=Sgd)


def train(
    make: Callable[[], Parts], seeds: list[int], updates: int = 24, until: int | None = None, per: str = "batch"
) -> Training:
    problem = with_tasks(small(), tasks_of([Reconstruction()]))
    rows = torch.arange(40)
    members = [Replica(rows[: 30 - s], rows[30:], (0, 1, 2), s, 0.1, 0.0) for s in seeds]
    schedule = Schedule(updates, 4, 7, 999, 0, shape="constant", tail=8)
    training = Training(problem, make, members, schedule, per=per)
    training.run(until)
    return training


def test_the_features_are_decoded() -> None:
    made, x = network(), torch.rand(1, 9, 6)
    said = made(x)
    decoder = made.get_submodule("auxiliary.0.decoders.0")
    torch.testing.assert_close(said.tasks[2].squeeze(-1), (decoder(said.features[0]) - x).square().mean(-1))
    assert [len(one) for one in (said.tasks, said.features)] == [3, 3]


def test_layer_by_layer_each_stage_is_an_auto_encoder() -> None:
    made, x = network(**LAYERS).eval(), torch.rand(1, 9, 6)
    hidden = made.inner.get_submodule("trunk.0")(x)
    expected, source = torch.zeros(1, 9), x
    for number, target in enumerate((x, hidden)):
        stage = made.inner.get_submodule(f"trunk.{number}")
        weight = next(iter(stage.parameters()))
        bias = made.get_parameter(f"auxiliary.0.decoders.{number}.bias")
        said = torch.sigmoid(stage(source) @ weight.mT + bias)
        expected = expected + F.binary_cross_entropy(said, target, reduction="none").sum(-1)
        source = hidden
    torch.testing.assert_close(made(x).tasks[2].squeeze(-1), expected)


def test_masks_take_their_share_and_are_drawn_anew() -> None:
    made, x = network(**LAYERS), torch.rand(1, 900, 6)
    mask = made.get_submodule("auxiliary.0.masks.0")
    first = mask(x)
    assert 0.25 < float((first == 0).float().mean()) < 0.35
    assert torch.equal(first, mask(x))
    replicas.tick(made)
    assert not torch.equal(first, mask(x))
    assert torch.equal(made.eval().get_submodule("auxiliary.0.masks.0")(x), x)


@pytest.mark.parametrize(("stop", "moved"), [(True, False), (False, True)])
def test_an_auto_encoder_trains_the_stages_below_if_it_may(stop: bool, moved: bool) -> None:
    made, x = network(widths=(5, 4), **LAYERS | {"stop_gradient": stop, "corruption": [0.3, 0.0]}), torch.rand(1, 9, 6)
    auxiliary: Any = made.auxiliary[0]
    first = list(made.inner.get_submodule("trunk.0").parameters())
    whole = made(x).tasks[2].sum()
    own = nn.ModuleList([made.inner.get_submodule("trunk.0")])
    gradient = torch.autograd.grad(whole, first, retain_graph=True)
    bottom = auxiliary._layer_by_layer.__func__  # the same network with the first stage alone
    cut = copy.copy(auxiliary)
    cut._modules = dict(auxiliary._modules) | {
        name: nn.ModuleList([next(iter(getattr(auxiliary, name)))]) for name in ("masks", "decoders")
    }
    lowest = torch.autograd.grad(bottom(cut, own, x).sum(), first)
    assert torch.equal(gradient[0], lowest[0]) != moved


@pytest.mark.parametrize("arguments", KINDS)
def test_it_serves_the_trunk_and_its_decoders_only(arguments: dict[str, Any]) -> None:
    made = network(**arguments)
    for name, served in reach(made, torch.rand(1, 9, 6)).items():
        expected = {"inner.trunk": [True] * 3, "inner.heads": None, "auxiliary": [False, False, True]}
        wanted = next(value for prefix, value in expected.items() if name.startswith(prefix))
        if wanted is None:
            assert not served[:, 2].any(), name
        else:
            assert served[0].tolist() == wanted, name


@pytest.mark.parametrize("arguments", KINDS)
def test_nothing_is_computed_for_tasks_that_nobody_asks_for(arguments: dict[str, Any]) -> None:
    made, x = network(**arguments), torch.rand(1, 9, 6)
    whole = made(x)
    for wanted in ([True, False, False], [False, False, True], [False, True, True]):
        some = made(x, None, torch.tensor(wanted))
        for one, other, want in zip(some.tasks, whole.tasks, wanted, strict=True):
            if want:
                assert torch.equal(one, other)
    assert not made(x, None, torch.tensor([True, True, False])).tasks[2].requires_grad
    assert made(x, None, torch.tensor([False, False, True])).tasks[0].shape == (1, 9, 3)


ALTERNATE = {"schedule": "abridged_linear", "t1": 5, "alternate": True}
BALANCINGS: list[Callable[[], Balancing]] = [
    Fixed,
    partial(Evolving, sigma=2.0),
    partial(Evolving, **ALTERNATE),
    kinfolk.balancing.Uncertainty,
]


@pytest.mark.parametrize("balancing", BALANCINGS)
@pytest.mark.parametrize("arguments", KINDS)
def test_alone_is_in_a_stack(arguments: dict[str, Any], balancing: Callable[[], Balancing]) -> None:
    make = partial(parts, balancing, **arguments)
    stack = train(make, [0, 1, 2])
    for place in range(3):
        alone = train(make, [place])
        kept = copy.deepcopy(stack.network.model)
        replicas.select(kept, torch.arange(3) == place)
        for (name, mine), (_, theirs) in zip(
            replicas.tensors(kept), replicas.tensors(alone.network.model), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.parametrize("balancing", BALANCINGS)
@pytest.mark.parametrize("arguments", KINDS)
def test_a_resumed_training_is_an_uninterrupted_one(
    arguments: dict[str, Any], balancing: Callable[[], Balancing]
) -> None:
    make = partial(parts, balancing, **arguments)
    whole, begun, again = train(make, [0, 1]), train(make, [0, 1], until=8), train(make, [0, 1], until=0)
    again.load({name: t.clone() for name, t in begun.state().items()})
    again.run()
    for (name, mine), (_, theirs) in zip(whole.state().items(), again.state().items(), strict=True):
        assert torch.equal(mine.nan_to_num(7.0), theirs.nan_to_num(7.0)), name


def weights(training: Training, prefix: str) -> list[Tensor]:
    return [p.detach().clone() for name, p in training.network.model.named_parameters() if name.startswith(prefix)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_in_the_step_toward_one_group_the_other_keeps_still() -> None:
    """Stairs: before t1 the output layer is untouched, after it the decoders are."""
    make = partial(parts, partial(Evolving, schedule="stairs", t1=3, alternate=True), **LAYERS)
    begun, before, after = train(make, [0], until=0), train(make, [0], until=12), train(make, [0])
    assert same(weights(begun, "inner.heads"), weights(before, "inner.heads"))
    assert not same(weights(begun, "inner.trunk"), weights(before, "inner.trunk"))
    assert same(weights(before, "auxiliary"), weights(after, "auxiliary"))
    assert not same(weights(before, "inner.heads"), weights(after, "inner.heads"))


def test_stairs_are_two_trainings_bit_for_bit() -> None:
    stairs = train(partial(parts, partial(Evolving, schedule="stairs", t1=3, alternate=True), **LAYERS), [0])
    constant = partial(Evolving, schedule="constant", alternate=True)
    first = train(partial(parts, partial(constant, share=1.0), **LAYERS), [0], until=12)
    second = train(partial(parts, partial(constant, share=0.0), **LAYERS), [0], until=0)
    second.load({name: t.clone() for name, t in first.state().items()})
    second.run()
    assert same(weights(stairs, ""), weights(second, ""))


def test_without_weight_it_is_the_padded_baseline() -> None:
    """Lambda 0: the supervised tasks alone on the same batches."""
    none = partial(Evolving, schedule="constant", share=0.0, alternate=True)
    with_it = train(partial(parts, none, **LAYERS), [0])
    problem, rows = small(), torch.arange(40)
    plain = Training(
        problem,
        lambda: Parts(Mlp(width=[5, 4], activation="sigmoid", init="glorot_sigmoid"), Hard(), Fixed(), optimizer=Sgd),
        [Replica(rows[:30], rows[30:], (0, 1), 0, 0.1, 0.0)],
        Schedule(24, 4, 7, 999, 0, shape="constant", tail=8),
    )
    plain.run()
    for mine, theirs in zip(weights(with_it, "inner."), weights(plain, ""), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


ONE_TRUNK = ("Hard", "Adapters", "Cascade", "Conditioned", "CovarianceAlignment", "Mtan")
SHARINGS = [v for v in vars(kinfolk.sharing).values() if isinstance(v, type) and issubclass(v, Sharing)]


@pytest.mark.parametrize("sharing", [s for s in SHARINGS if s is not Independent])
@pytest.mark.parametrize("arguments", KINDS[:3])
def test_every_sharing_trains_with_it_or_says_why_not(sharing: type[Sharing], arguments: dict[str, Any]) -> None:
    make = partial(parts, partial(Evolving, **ALTERNATE), sharing, **arguments)
    if arguments.get("layerwise") and sharing.__name__ not in ONE_TRUNK:
        with pytest.raises(ValueError, match="needs a sharing with one trunk"):
            train(make, [0], 8)
        return
    assert np.isfinite(train(make, [0], 8).history[-1][3].numpy()).all()


def test_a_method_that_needs_features_is_refused_where_they_are_not_all() -> None:
    def needy() -> Balancing:
        return kinfolk.balancing.MgdaUb() if hasattr(kinfolk.balancing, "MgdaUb") else Needy()

    with pytest.raises(ValueError, match="needs features that several tasks read, and `hard` has none"):
        train(partial(parts, needy, layerwise=True), [0])


class Needy(Fixed):
    needs = ("features",)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"corruption": 1.0}, "`corruption` must be in"),
        ({"corruption": [0.1, 0.2]}, "layer by layer one per stage"),
        ({"cost": "hinge"}, "`cost` must be one of"),
        ({"reduction": "max"}, "`reduction` must be one of"),
        ({"tied": True}, "`tied` decoders belong"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Reconstruction(**arguments)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: network(CrossStitch(), layerwise=True), "needs a sharing with one trunk, as hard, and `cross_stitch`"),
        (lambda: network(layerwise=True, corruption=[0.1, 0.2, 0.3]), "or 2, one per stage"),
        (lambda: train(partial(parts, Fixed, **LAYERS, layerwise=True), [0]), "multiple values"),
    ],
)
def test_networks_that_do_not_fit(made: Callable[[], object], why: str) -> None:
    with pytest.raises((ValueError, TypeError), match=why):
        made()


def test_a_cross_entropy_needs_inputs_in_its_range() -> None:
    with pytest.raises(ValueError, match=r"needs inputs in \[0, 1\]"):
        Reconstruction(cost="cross_entropy").check(torch.tensor([[0.5, 1.2]]))


def test_an_arm_names_it() -> None:
    arm = NetworkArm("mlp(width=8) + hard + reconstruction(corruption=0.2) + evolving(alternate=True)")
    assert [task.name for task in arm.added] == ["reconstruction"]
    assert arm.role == "sharing"
    assert NetworkArm("independent + reconstruction").role == "single-task"
    assert isinstance(arm.make(arm.settings[0]).sharing, WithAuxiliary)
    assert isinstance(arm.handed_over(arm.settings[0]).sharing, Hard)
    arm.check([DIGIT, PASSES], 6)
    with pytest.raises(InputError, match="Give that target another name"):
        arm.check([Task("reconstruction", "regression")], 6)
    with pytest.raises(InputError, match=r"does not fit this table.*one trunk"):
        NetworkArm("mmoe + reconstruction(layerwise=True)").check([DIGIT, PASSES], 6)
