"""Cross-stitch networks: limits, gradients, and the start from trained trunks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.balancing import Fixed
from kinfolk.data.problem import Problem
from kinfolk.data.tasks import Task
from kinfolk.penalties import SoftSharing
from kinfolk.sharing import CrossStitch, Hard, Soft
from kinfolk.sharing.base import Sharing, reach
from kinfolk.training.loop import Parts, Replica, Training
from kinfolk.training.schedule import Schedule
from kinfolk.trunks import FromModules, Mlp
from kinfolk.trunks.base import Trunk

TASKS = (Task("a", "regression"), Task("b", "regression"), Task("c", "regression"))
INPUTS = torch.Size([5])
PER = ["layer", "channel"]


def build(sharing: Sharing, trunk: Trunk | None = None, tasks: Sequence[Task] = TASKS, seed: int = 0) -> Sharing:
    with replicas.own("network", seed):
        return sharing.setup(trunk or Mlp(6, depth=3), tasks, INPUTS)


def gradients(model: Sharing, x: Tensor) -> dict[str, Tensor]:
    sum((output.square().sum() for output in model(x).tasks), torch.zeros(())).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("per", PER)
def test_the_identity_is_trunks_apart_bit_for_bit(per: str, alike: bool) -> None:
    x = torch.randn(1, 7, 5)
    stitched, apart = build(CrossStitch(1, 0, per, alike=alike)), build(Soft(alike))
    assert all(torch.equal(a, b) for a, b in zip(stitched(x).tasks, apart(x).tasks, strict=True))
    mine, theirs = gradients(stitched, x), gradients(apart, x)
    for name, gradient in theirs.items():
        # Channel by channel, another order of axes in memory leaves sums of biases' gradients equal but for rounding.
        exact = 0.0 if per == "layer" else 1e-6
        torch.testing.assert_close(mine[name], gradient, rtol=exact, atol=exact)


@pytest.mark.parametrize("per", PER)
def test_equal_lines_give_identical_streams(per: str) -> None:
    outputs = build(CrossStitch(1 / 3, 2 / 3, per, alike=False))(torch.randn(1, 7, 5))
    for feature in outputs.features[1:]:
        torch.testing.assert_close(feature, outputs.features[0])


def test_halves_of_identical_trunks_are_hard_sharing() -> None:
    x = torch.randn(1, 7, 5)
    stitched, hard = (build(kind, tasks=TASKS[:2]) for kind in (CrossStitch(0.5, 0.5), Hard()))
    for one, other in zip(stitched(x).tasks, hard(x).tasks, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("per", PER)
def test_forward_and_backward_as_the_equations(per: str) -> None:
    """One stage of two tasks by hand; the gradients of alpha are those of the forward rule, not the printed ones."""
    model = build(CrossStitch(0.7, 0.2, per, alike=False), FromModules([nn.Linear(5, 4)]), TASKS[:2])
    x = torch.randn(1, 7, 5)
    a, b = model.get_submodule("trunks")(x)[0]
    outputs = model(x)
    torch.testing.assert_close(outputs.features[0][0], 0.7 * a + 0.2 * b)
    torch.testing.assert_close(outputs.features[1][0], 0.2 * a + 0.7 * b)
    sent = [torch.randn(1, 7, 4), torch.randn(1, 7, 4)]
    torch.autograd.backward(list(outputs.features), sent)
    (alpha,) = model.get_submodule("alphas").parameters()
    assert alpha.grad is not None
    for task in range(2):
        for source, features in enumerate((a, b)):
            each = (sent[task][0] * features).sum(0)
            torch.testing.assert_close(alpha.grad[task, source], each if per == "channel" else each.sum()[None])


@pytest.mark.parametrize("per", PER)
def test_gradients_by_finite_differences(per: str) -> None:
    model = build(CrossStitch(0.6, 0.4, per, alike=False), Mlp(3, activation="tanh")).double()
    x = torch.randn(1, 4, 5).double()
    parameters = dict(model.named_parameters())

    def loss(*given: Tensor) -> Tensor:
        held = dict(zip(parameters, given, strict=True))
        return torch.cat(torch.func.functional_call(model, held, (x,)).tasks, 2).square().mean()

    assert torch.autograd.gradcheck(loss, tuple(parameters.values()))


@pytest.mark.parametrize("per", PER)
def test_images_are_mixed_pixel_by_pixel(per: str) -> None:
    trunk = FromModules([nn.Conv2d(2, 4, 3), nn.ReLU()])
    with replicas.own("network", 0):
        model = CrossStitch(0.8, 0.2, per, stages=[1]).setup(trunk, TASKS, torch.Size([2, 6, 6]))
    for parameter in model.trunks.parameters():
        parameter.data.normal_()
    x = torch.randn(2, 2, 6, 6)
    weight, bias = model.trunks.parameters()
    maps = [nn.functional.conv2d(x, weight[t], bias[t]).relu() for t in range(3)]
    mixed = model(x.unsqueeze(0)).features
    for t, features in enumerate(mixed):
        others = sum(m for s, m in enumerate(maps) if s != t)
        torch.testing.assert_close(features[0], (0.8 * maps[t] + 0.1 * others).flatten(1))


def test_more_tasks_share_what_is_for_others() -> None:
    model = build(CrossStitch(0.9, 0.1))
    table = model.learned()["alphas after stage 0"]
    torch.testing.assert_close(table.values[0], torch.full((3, 3), 0.05).fill_diagonal_(0.9))
    assert table.lines == table.columns == ("a", "b", "c")
    alone = build(CrossStitch(0.9, 0.1), tasks=TASKS[:1])
    assert alone.learned()["alphas after stage 0"].values.tolist() == [[[1.0]]]


def test_learned_is_the_mean_over_channels_for_each_replica() -> None:
    model = replicas.stack([build(CrossStitch(per="channel"), seed=seed) for seed in range(2)])
    alpha = model.get_parameter("alphas.1")
    alpha.data.normal_()
    table = model.learned()["alphas after stage 1"]
    torch.testing.assert_close(table.values, alpha.detach().view(2, 3, 3, 6).mean(-1))


def problem(missing: float = 0.0) -> Problem:
    x = torch.randn(60, 5)
    labels = torch.stack([x[:, 0], x[:, 1] * x[:, 2], x[:, 3].sin()], 1) + 0.1 * torch.randn(60, 3)
    labels[torch.rand(60, 3) < missing] = torch.nan
    return Problem.from_arrays(x.numpy(), labels.numpy(), TASKS, None)


MEMBER = Replica(torch.arange(40), torch.arange(40, 60), (0, 1, 2), 0, 1e-2, 1e-2)
SCHEDULE = Schedule(updates=16, every=4, batch=8, patience=999, warmup=2)


@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_the_first_phase_is_trunks_apart(missing: float) -> None:
    known = problem(missing)
    two = Training(known, lambda: Parts(Mlp(6), CrossStitch(start="independent"), Fixed()), [MEMBER], SCHEDULE)
    apart = Training(known, lambda: Parts(Mlp(6), Soft(), Fixed(), (SoftSharing(0),)), [MEMBER], SCHEDULE)
    two.run(until=16)
    apart.run()
    for (_, _, *mine), (_, _, *theirs) in zip(two.history, apart.history, strict=True):
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(mine, theirs, strict=True))
    alphas = two.network.model.learned()["alphas after stage 0"].values
    torch.testing.assert_close(alphas[0], torch.full((3, 3), 0.05).fill_diagonal_(0.9))
    two.run()
    assert two.updates == 32
    assert not torch.equal(two.network.model.learned()["alphas after stage 0"].values, alphas)
    assert two.stopping.snapshot(0)["joined.now"].tolist() == [True] * 3


def test_tasks_do_not_reach_each_other_before_they_are_stitched() -> None:
    model = build(CrossStitch(start="independent"))
    inputs = torch.randn(1, 3, 5)
    before = {name: t for name, t in reach(model, inputs).items() if name.startswith("trunks")}
    assert all(torch.equal(found, torch.eye(3, dtype=torch.bool)) for found in before.values())
    model.get_buffer("joined.now").fill_(True)
    assert all(bool(reach(model, inputs)[name].all()) for name in before)


def test_replicas_of_both_phases_in_one_network() -> None:
    made = [build(CrossStitch(start="independent", alike=False), seed=seed) for seed in range(2)]
    made[1].get_buffer("joined.now").fill_(True)
    x = torch.randn(2, 4, 5)
    expected = [one(x[i : i + 1]).tasks[0][0] for i, one in enumerate(made)]
    torch.testing.assert_close(replicas.stack(made)(x).tasks[0], torch.stack(expected))


def test_the_rate_of_alphas() -> None:
    assert CrossStitch(rate=10).rates(0) == {"alphas": 10.0}
    two = CrossStitch(rate=10, start="independent")
    assert [dict(two.rates(phase)) for phase in range(two.phases)] == [{"alphas": 0.0}, {"alphas": 10.0}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"same": 1.5}, r"`same` must be in \[0, 1\]\. Got 1\.5"),
        ({"other": -0.1}, r"`other` must be in \[0, 1\]\. Got -0\.1"),
        ({"per": "pixel"}, "`per` must be 'layer' or 'channel'. Got 'pixel'"),
        ({"rate": -1.0}, "`rate` must not be negative"),
        ({"start": "pretrained"}, "`start` must be None or 'independent'. Got 'pretrained'"),
    ],
)
def test_bad_arguments(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CrossStitch(**given)


@pytest.mark.parametrize("stages", [[3], [], [-4]])
def test_stages_that_do_not_exist(stages: list[int]) -> None:
    with pytest.raises(ValueError, match=r"`stages` must name some of the trunk's 3 stages, 0 to 2\. Got"):
        build(CrossStitch(stages=stages))


def test_stitches_only_where_asked() -> None:
    assert set(build(CrossStitch(stages=[0, -1])).learned()) == {"alphas after stage 0", "alphas after stage 2"}
