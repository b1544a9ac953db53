"""Which rows a replica sees: every pass is a permutation, and nothing else matters than seed and update."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinfolk import replicas
from kinfolk.data.streams import BLOCK, Rows


def stream(seed: int, pool: torch.Tensor, size: int, longest: int | None = None) -> Rows:
    with replicas.own("rows", seed):
        return Rows(pool, size, longest or len(pool))


def seen(rows: Rows, updates: int) -> torch.Tensor:
    drawn = []
    for _ in range(updates):
        drawn.append(rows())
        replicas.tick(rows)
    return torch.stack(drawn, 1)  # [replica, update, row]


@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 5))
def test_every_pass_is_a_permutation_of_the_pool(n: int, size: int, seed: int) -> None:
    pool = torch.arange(n) * 3 + 1
    walk = seen(stream(seed, pool, size), 2 * BLOCK + 3)[0].flatten()
    for lap in walk[: len(walk) // n * n].view(-1, n):
        assert torch.equal(lap.sort().values, pool)


def test_passes_and_seeds_differ() -> None:
    pool = torch.arange(50)
    first, second = seen(stream(0, pool, 10), 10)[0].view(2, 50)
    assert not torch.equal(first, second)
    assert not torch.equal(seen(stream(1, pool, 10), 5)[0].flatten(), first)


def test_all_looks_within_an_update_see_the_same() -> None:
    rows = stream(0, torch.arange(9), 4)
    assert torch.equal(rows(), rows())


@pytest.mark.parametrize("start", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_goes_on_from_any_update(start: int) -> None:
    whole = seen(stream(3, torch.arange(11), 4), start + 20)
    later = stream(3, torch.arange(11), 4)
    later.update.fill_(start)
    assert torch.equal(seen(later, 20), whole[:, start:])


def test_company_does_not_matter() -> None:
    pools = [torch.arange(7), torch.arange(10, 15), torch.arange(20, 40)]
    alone = [seen(stream(s, pool, 6), 2 * BLOCK) for s, pool in enumerate(pools)]
    together = replicas.stack([stream(s, pool, 6, 20) for s, pool in enumerate(pools)])
    torch.testing.assert_close(seen(together, 5), torch.cat(alone)[:, :5])
    replicas.select(together, torch.tensor([True, False, True]))
    together.forget()
    torch.testing.assert_close(seen(together, 20), torch.cat([alone[0], alone[2]])[:, 5:25])


def test_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Rows(torch.arange(0), 4, 4)
