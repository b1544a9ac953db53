"""Two processes that train together compute what one process computes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

import two_processes
from kinfolk import distributed

Computed = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def one() -> Iterator[Computed]:
    yield two_processes.compute()
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Computed]:
    folder = tmp_path_factory.mktemp("two_processes")
    spawn(two_processes.process, (str(folder),), nprocs=2)
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("arm", two_processes.ARMS)
def test_two_processes_are_one(arm: str, one: Computed, two: list[Computed]) -> None:
    for rank in range(2):
        assert two[rank][arm].keys() == one[arm].keys()
        for name, tensor in two[rank][arm].items():
            # Adam moves a bias before a batch norm by rounding alone: its gradient is 0.
            atol = 1e-7 if arm == "batch norm" else 1e-10
            said = partial("{}: {}".format, name)
            torch.testing.assert_close(tensor, one[arm][name], rtol=1e-10, atol=atol, equal_nan=True, msg=said)


@pytest.mark.parametrize("arm", two_processes.ARMS)
def test_processes_agree_to_the_last_bit(arm: str, two: list[Computed]) -> None:
    """They decide alike which replicas retire, or they would wait for each other for ever."""
    for name, tensor in two[0][arm].items():
        assert torch.equal(tensor.nan_to_num(), two[1][arm][name].nan_to_num()), name


def test_a_replica_retired_meanwhile(one: Computed) -> None:
    assert any(len(one[arm]["network/number"]) < 2 for arm in two_processes.ARMS)


def test_sums(one: Computed, two: list[Computed]) -> None:
    for computed in two:
        for name, tensor in computed["sums"].items():
            torch.testing.assert_close(tensor, one["sums"][name], rtol=1e-12, atol=1e-12)


def test_one_process_hands_through() -> None:
    part = torch.ones(3)
    assert distributed.processes() == 1
    assert distributed.share() == slice(None)
    assert distributed.total(part) is part
    assert distributed.mean(part) is part
