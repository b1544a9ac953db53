"""AdamW on stacks against torch's own, one optimiser per copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.training.optim import AdamW, Tuned

SHAPES = [(3, 2), (4,), ()]


class One(nn.Module):
    """One replica: parameters and their optimiser."""

    def __init__(self, seed: int, slices: int = 1, rate: float = 1e-2, decay: float = 0.1, **tuned: object) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.parameters_ = nn.ParameterList(torch.randn(slices, *shape, generator=g) for shape in SHAPES)
        self.optimizer = AdamW([Tuned(p, **tuned) for p in self.parameters_], rate, decay)  # pyright: ignore[reportArgumentType]


def gradients(step: int, copies: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(100 + step)
    return [torch.randn(copies, *shape, generator=g) for shape in SHAPES]


def move(one: One, steps: int, present: Callable[[int], Tensor | None] = lambda _: None) -> None:
    for step in range(steps):
        one.optimizer.present = present(step)
        one.optimizer.zero_grad()
        for p, g in zip(one.parameters_, gradients(step, len(one.parameters_[0])), strict=True):
            p.grad = g.clone()
        one.optimizer.factor = 1 / (1 + step)
        one.optimizer.step()


def torchs(start: Sequence[Tensor], copy: int, rate: float, decay: float, moves: Sequence[bool]) -> list[Tensor]:
    """What torch.optim.AdamW makes of one copy that moves in some of the steps."""
    mine = [nn.Parameter(p[copy].detach().clone()) for p in start]
    optimizer = torch.optim.AdamW(mine, lr=rate, weight_decay=decay)
    for step, moving in enumerate(moves):
        optimizer.param_groups[0]["lr"] = rate / (1 + step)
        for p, g in zip(mine, gradients(step, len(start[0])), strict=True):
            p.grad = g[copy].clone()
        if moving:
            optimizer.step()
    return [p.detach() for p in mine]


def assert_is_torchs(one: One, start: Sequence[Tensor], copy: int, *settings: float, moves: Sequence[bool]) -> None:
    for mine, theirs in zip(one.parameters_, torchs(start, copy, settings[0], settings[1], moves), strict=True):
        torch.testing.assert_close(mine[copy].detach(), theirs, rtol=1e-11, atol=1e-13)


def values(one: One) -> list[Tensor]:
    return [p.detach().clone() for p in one.parameters_]


def test_one_replica_is_torchs() -> None:
    one = One(0)
    start = values(one)
    move(one, 25)
    assert_is_torchs(one, start, 0, 1e-2, 0.1, moves=[True] * 25)


def test_factors_of_a_parameter() -> None:
    one = One(0)
    tuned = AdamW([Tuned(p, 3.0, 0.5) for p in one.parameters_], 1e-2, 0.1)
    one.optimizer = tuned
    start = values(one)
    move(one, 10)
    assert_is_torchs(one, start, 0, 3e-2, 0.05, moves=[True] * 10)


SETTINGS = [(1e-2, 0.1), (1e-2, 0.1), (3e-2, 0.0), (1e-2, 0.1), (1e-4, 1.0)]


def stacked(slices: int = 1, reach: Tensor | None = None) -> One:
    made = [One(s, slices, rate, decay, reach=reach) for s, (rate, decay) in enumerate(SETTINGS)]
    one = replicas.stack(made)
    one.optimizer.forget()
    return one


@pytest.mark.parametrize("slices", [1, 2])
def test_each_replica_has_its_rate_and_decay(slices: int) -> None:
    one = stacked(slices)
    start = values(one)
    move(one, 22)
    for copy in range(slices * len(SETTINGS)):
        assert_is_torchs(one, start, copy, *SETTINGS[copy // slices], moves=[True] * 22)


@settings(max_examples=25)
@given(seed=st.integers(0, 20), share=st.sampled_from([0.2, 0.6, 0.9]))
def test_a_slice_moves_when_a_task_that_it_serves_is_present(seed: int, share: float) -> None:
    reach = torch.tensor([[True, False, False], [False, True, True]])
    presence = torch.rand(24, len(SETTINGS), 3, generator=torch.Generator().manual_seed(seed)) < share
    one = stacked(2, reach)
    start = values(one)
    move(one, 24, lambda step: presence[step])
    for replica, (rate, decay) in enumerate(SETTINGS):
        for part in range(2):
            moves = [bool((now[replica] & reach[part]).any()) for now in presence]
            assert_is_torchs(one, start, 2 * replica + part, rate, decay, moves=moves)


def test_a_replica_without_any_label_does_not_move() -> None:
    one = stacked()
    start = values(one)
    present = torch.tensor([[True], [False], [True], [True], [False]])
    move(one, 5, lambda _: present)
    for copy in range(5):
        assert_is_torchs(one, start, copy, *SETTINGS[copy], moves=[bool(present[copy])] * 5)


def test_an_absent_slice_keeps_its_bits() -> None:
    one = stacked(2, torch.eye(2, dtype=torch.bool))
    move(one, 3)
    before = {name: t.detach().clone() for name, t in one.state_dict().items()}
    move(one, 3, lambda _: torch.tensor([[True, False]] * 5))
    for name, t in one.state_dict().items():
        if t.ndim and len(t) == 10 and "reach" not in name:
            assert torch.equal(t[1::2], before[name][1::2]), name
            assert (t[::2] != before[name][::2]).any(), name


def test_both_ways_to_step_are_one() -> None:
    """The fused kernel, and the masked one that a parameter falls back to once its copies have unequal counts."""
    fused, masked = One(0, slices=2), One(0, slices=2)
    state = masked.optimizer.slices()
    for one in state:
        one.steps = None
    move(fused, 20)
    move(masked, 20)
    for name, t in fused.state_dict().items():
        torch.testing.assert_close(t, masked.state_dict()[name], rtol=1e-11, atol=1e-13)


def test_a_parameter_without_a_gradient_stays() -> None:
    one = One(0)
    start = values(one)
    one.parameters_[1].grad = torch.ones_like(one.parameters_[1])
    one.optimizer.step()
    assert torch.equal(one.parameters_[0], start[0])
    assert not torch.equal(one.parameters_[1], start[1])
    assert int(one.optimizer.get_buffer("count0")) == 0


@pytest.mark.parametrize(
    ("rate", "decay"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, -0.1), (1.0, float("nan"))]
)
def test_refuses_settings_out_of_range(rate: float, decay: float) -> None:
    with pytest.raises(ValueError, match="learning rate must be positive"):
        AdamW([], rate, decay)
