"""Learning to branch: picks are hard, their gradient is soft, and everything can be reached."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.data.tasks import Task
from kinfolk.sharing import Hard, LearnedBranching
from kinfolk.sharing.base import reach
from kinfolk.sharing.learned_branching import Choice
from kinfolk.trunks import Mlp

TASKS = (Task("a", "regression"), Task("b", "binary", (0, 1)), Task("c", "regression"))
INPUTS = torch.Size([5])


def build(seed: int = 0, **given: Any) -> LearnedBranching:
    with replicas.own("network", seed):
        return LearnedBranching(**given).setup(Mlp(6, depth=3), TASKS, INPUTS)


def decided(model: LearnedBranching, *picks: list[int]) -> None:
    """Makes every child pick a parent, with certainty."""
    for module, parents in zip(model.choices, picks, strict=True):
        choice = cast(Choice, module)
        choice.logits.data.fill_(-100.0)
        choice.logits.data[range(len(parents)), parents] = 100.0


def through(model: LearnedBranching, x: Tensor, *copies: int) -> Tensor:
    """What comes out of a path of copies, stage by stage."""
    for stage, at in zip(model.trunk.stages, copies, strict=True):
        x = stage(x.expand(len(model.trunk), -1, -1))[at : at + 1]
    return x


@pytest.mark.parametrize("training", [False, True])
def test_each_task_follows_its_path(training: bool) -> None:
    model = build(warmup=0).train(training)
    decided(model, [2, 0, 0], [0, 0, 1], [1, 2, 2])
    x = torch.randn(1, 7, 5)
    features = model(x).features
    torch.testing.assert_close(features[0], through(model, x, 2, 0, 1))
    torch.testing.assert_close(features[1], through(model, x, 0, 1, 2))
    torch.testing.assert_close(features[2], features[1])


def test_one_copy_is_hard_sharing() -> None:
    model = build(copies=1)
    hard = Hard().setup(Mlp(6, depth=3), TASKS, INPUTS)
    for mine, theirs in zip(hard.trunk.parameters(), model.trunk.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    hard.heads.load_state_dict(model.heads.state_dict())
    x = torch.randn(1, 7, 5)
    for training in (True, False):
        for mine, theirs in zip(model.train(training)(x).tasks, hard(x).tasks, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_while_warm_each_child_reads_the_mean_of_all_parents() -> None:
    model = build()
    decided(model, [0, 0, 0], [1, 1, 1], [2, 2, 2])
    x = torch.randn(1, 7, 5)
    mean = x.expand(3, -1, -1)
    for stage in model.trunk.stages:
        mean = stage(mean).mean(0, keepdim=True).expand(3, -1, -1)
    for feature in model(x).features:
        torch.testing.assert_close(feature, mean[:1])
    torch.testing.assert_close(model.eval()(x).features[0], through(model, x, 0, 1, 2))  # judged as it will be used
    model.train().at_epoch(2, None, None)
    torch.testing.assert_close(model(x).features[0], through(model, x, 0, 1, 2))


def test_picks_are_hard_and_drawn_by_their_probabilities() -> None:
    choice = Choice(1, 3)
    choice.logits.data.copy_(torch.tensor([[0.0, 1.0, 2.0]]))
    x, count = torch.eye(3).view(1, 3, 1, 3), torch.zeros(3)
    for _ in range(2000):
        picked = choice(x, torch.tensor(0.7), torch.tensor(False)).flatten().detach()
        assert sorted(picked.round(decimals=5).tolist()) == [0.0, 0.0, 1.0]
        count += picked
        replicas.tick(choice)
    expected = choice.probabilities().flatten()
    assert torch.allclose(count / 2000, expected, atol=0.04)  # whatever the temperature


def test_the_gradient_is_that_of_the_soft_pick() -> None:
    choice, temperature = Choice(2, 3), torch.tensor(0.7)
    choice.logits.data.normal_()
    x, weights = torch.randn(1, 3, 4, 2), torch.randn(1, 2, 4, 2)
    (choice(x, temperature, torch.tensor(False)) * weights).sum().backward()
    logits = choice.logits.detach().clone().requires_grad_()
    noise = -(-choice.uniform(2, 3).log()).log()
    soft = ((logits + noise[0]) / temperature).softmax(-1)
    (torch.einsum("cp,prf->crf", soft, x[0]) * weights[0]).sum().backward()
    torch.testing.assert_close(choice.logits.grad, logits.grad)


def test_picks_are_the_same_within_an_update_and_differ_between_updates() -> None:
    model = build(warmup=0)
    x = torch.randn(1, 7, 5)
    seen = []
    for _ in range(8):
        features = [model(x).features[0] for _ in range(2)]
        assert torch.equal(*features)
        seen.append(features[0])
        replicas.tick(model)
    assert any(not torch.allclose(feature, seen[0]) for feature in seen)
    assert torch.equal(model.eval()(x).features[0], model(x).features[0])


def test_every_copy_may_serve_every_task() -> None:
    """Also copies that no child picks now: else they would not move when they are drawn."""
    model = build()
    decided(model, [0, 0, 0], [0, 0, 0], [0, 0, 0])
    for name, slices in reach(model, torch.randn(1, 3, 5)).items():
        if name.startswith("choices.2"):
            assert slices.tolist() == torch.eye(3, dtype=torch.bool).tolist()  # a task's own pick
        elif not name.startswith("heads"):
            assert bool(slices.all()), name


def test_the_temperature_falls() -> None:
    model = build(temperature=4)
    for epoch in (0, 3, 15):
        model.at_epoch(epoch, None, None)
        assert float(model.heat) == pytest.approx(4 / math.sqrt(epoch + 1))
        assert bool(model.warm) == (epoch < 2)


def test_the_better_parent_is_learned() -> None:
    """Two parents: one gives the target, one noise. The pick is decided by gradient descent."""
    choice = Choice(1, 2)
    optimizer = torch.optim.Adam(choice.parameters(), 0.1)
    target = torch.randn(1, 1, 30, 1)
    x = torch.cat([torch.randn(1, 1, 30, 1), target], 1)
    for _ in range(80):
        loss = (choice(x, torch.tensor(1.0), torch.tensor(False)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        replicas.tick(choice)
    assert float(choice.probabilities()[0, 0, 1].detach()) > 0.9


def test_what_is_learned_are_the_chances_of_each_pick() -> None:
    model = replicas.stack([build(seed, copies=2) for seed in range(2)])
    found = model.learned()
    assert list(found) == ["choices of stage 1", "choices of stage 2", "choices of the tasks"]
    assert found["choices of stage 1"].lines == found["choices of the tasks"].columns == ("copy 0", "copy 1")
    assert found["choices of the tasks"].lines == ("a", "b", "c")
    assert found["choices of the tasks"].values.shape == (2, 3, 2)
    assert all(bool((one.values == 0.5).all()) for one in found.values())
    assert model.rates(0) == {"choices": 10.0}


@pytest.mark.parametrize("given", [{"temperature": 0}, {"warmup": -1}, {"rate": -0.1}, {"temperature": float("nan")}])
def test_bad_input(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LearnedBranching(**given)


def test_copies_are_at_least_one() -> None:
    with pytest.raises(ValueError, match=r"`copies` must be at least 1, or None\. Got 0"):
        LearnedBranching(copies=0)
