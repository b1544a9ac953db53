"""Random weights: their law, and what they depend on."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from kinfolk import replicas
from kinfolk.balancing import Losses, RandomWeights
from kinfolk.data.tasks import Task

TASKS = [Task(name, "regression") for name in "abc"]
MANY = 4000


def drawn(draw: str = "normal", reduction: str = "native", present: Tensor | None = None) -> Tensor:
    """The weights of many replicas."""
    method = RandomWeights(draw, reduction).setup(TASKS)
    method.random.seed = torch.arange(MANY)
    present = None if present is None else present.expand(MANY, 3)
    return method.backward(Losses(torch.ones(MANY, 3, requires_grad=True) * 1, present))


@pytest.mark.parametrize("draw", ["normal", "dirichlet"])
def test_the_law(draw: str) -> None:
    weights = drawn(draw)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(MANY))
    torch.testing.assert_close(weights.mean(0), torch.full((3,), 1 / 3), atol=0.015, rtol=0.0)
    if draw == "dirichlet":  # with all concentrations 1 each weight has the distribution function 1 - (1 - w)^2
        assert (weights < 0.5).float().mean().item() == pytest.approx(0.75, abs=0.015)
    else:  # the log of a ratio of two weights is normal with variance 2
        ratio = (weights[:, 0] / weights[:, 1]).log()
        assert (ratio < 1).float().mean().item() == pytest.approx(NormalDist(0, 2**0.5).cdf(1), abs=0.02)


def test_reductions() -> None:
    native, mean, whole = (drawn(reduction=one) for one in ("native", "mean", "sum"))
    assert torch.equal(native, mean)
    torch.testing.assert_close(whole, 3 * native)


def test_absent_tasks_weigh_nothing() -> None:
    weights = drawn(reduction="sum", present=torch.tensor([True, False, True]))
    assert bool((weights[:, 1] == 0).all())
    torch.testing.assert_close(weights.sum(1), torch.full((MANY,), 2.0))
    assert bool((drawn(present=torch.zeros(3, dtype=torch.bool)) == 0).all())


def test_a_draw_lasts_for_an_update() -> None:
    method = RandomWeights().setup(TASKS)
    weigh = lambda: method.backward(Losses(torch.ones(3, requires_grad=True) * 1))  # noqa: E731
    first = weigh()
    torch.rand(5)
    assert torch.equal(weigh(), first)
    replicas.tick(method)
    assert not torch.equal(weigh(), first)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"`draw` must be one of normal, dirichlet. Got 'uniform'"):
        RandomWeights(draw="uniform")
    with pytest.raises(ValueError, match=r"`reduction` must be one of native, sum, mean. Got 'none'"):
        RandomWeights(reduction="none")
