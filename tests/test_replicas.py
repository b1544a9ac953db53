"""The rule of the replica axis, over random trees of modules."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.trunks import Mlp


class Leaf(nn.Module):
    """Parameters and buffers with a copy axis, a counter without one, a hyper-parameter."""

    def __init__(self, shapes: list[tuple[int, ...]], slices: int) -> None:
        super().__init__()
        self.slices = slices
        for i, shape in enumerate(shapes):
            tensor = torch.randn(slices, *shape)
            if i % 2:
                self.register_buffer(f"buffer{i}", tensor)
            else:
                self.register_parameter(f"parameter{i}", nn.Parameter(tensor))
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))


shapes = st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), max_size=3)
leaves = st.tuples(shapes, st.integers(1, 3))
trees = st.recursive(leaves, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=6)


def build(tree: tuple | list) -> nn.Module:
    return nn.ModuleList([build(part) for part in tree]) if isinstance(tree, list) else Leaf(*tree)


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def test_tensors_are_those_with_a_copy_axis() -> None:
    names = [name for name, _ in replicas.tensors(Leaf([(2,), ()], 2))]
    assert names == ["parameter0", "buffer1"]


@given(tree=trees, n=st.integers(1, 4), data=st.data())
def test_stack_then_select_gives_back_each_replica(tree: tuple | list, n: int, data: st.DataObject) -> None:
    single = [build(tree) for _ in range(n)]
    before = [values(one) for one in single]
    held = list(single[0].parameters())
    stacked = replicas.stack(single)
    assert stacked is single[0]
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    for parameter in held:
        parameter.grad = torch.ones_like(parameter)
    replicas.select(stacked, keep)
    assert all(mine is theirs for mine, theirs in zip(stacked.parameters(), held, strict=True))
    assert all(parameter.grad is None for parameter in held)
    kept = [one for one, stays in zip(before, keep.tolist(), strict=True) if stays]
    for name, tensor in stacked.state_dict().items():
        if tensor.ndim:
            whole = torch.cat([one[name] for one in kept]) if kept else before[0][name][:0]
            assert torch.equal(tensor, whole)
        else:
            assert torch.equal(tensor, before[0][name])


@given(tree=trees, n=st.integers(1, 3), m=st.integers(1, 3))
def test_load_takes_any_number_of_replicas(tree: tuple | list, n: int, m: int) -> None:
    stored = replicas.stack([build(tree) for _ in range(n)]).state_dict()
    wanted = {name: tensor.clone() for name, tensor in stored.items()}
    module = replicas.stack([build(tree) for _ in range(m)])
    replicas.load(module, stored)
    for tensor in stored.values():
        tensor.zero_()  # what was loaded is a copy
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in module.state_dict().items())


def test_load_refuses_another_model_and_changes_nothing() -> None:
    module = nn.ModuleList([Leaf([(2,)], 1), Leaf([(3,)], 1)])
    before = values(module)
    for state in ({}, {**before, "1.parameter0": torch.zeros(1, 4)}, {**before, "1.parameter0": torch.zeros(1, 3, 1)}):
        with pytest.raises(ValueError, match="does not fit this model"):
            replicas.load(module, {**state, "0.parameter0": torch.zeros(1, 2)} if state else state)
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


class Other(Leaf):
    """As a leaf, of another type."""


def late(leaf: Leaf) -> Leaf:
    leaf.get_buffer("counter").fill_(3)
    return leaf


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (lambda: Leaf([(2,)], 2), "hyper-parameters"),
        (lambda: Leaf([(3,)], 1), "one shape"),
        (lambda: Leaf([(2, 1)], 1), "one shape"),
        (lambda: Leaf([(2,), (2,)], 1), "equal tensors"),
        (lambda: Leaf([(2,)], 1).double().half(), "one shape and type"),
        (lambda: Other([(2,)], 1), "built alike"),
        (lambda: nn.ModuleList([Leaf([(2,)], 1)]), "built alike"),
        (lambda: late(Leaf([(2,)], 1)), "common to all replicas"),
    ],
)
def test_stack_refuses_what_was_not_built_alike(other, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        replicas.stack([Leaf([(2,)], 1), other()])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Mlp(4, activation="relu"), Mlp(4, activation="tanh")),
        (Mlp(4, activation="relu"), Mlp(4, activation="silu")),
        (Mlp(4, norm="layer"), Mlp(4, norm="batch")),
        (Mlp(4, depth=1), Mlp(4, depth=2)),
    ],
)
def test_stack_refuses_other_layers(one: Mlp, other: Mlp) -> None:
    stages = [nn.ModuleList(trunk.build(torch.Size([4])).modules) for trunk in (one, other)]
    with pytest.raises(ValueError, match=r"built alike|equal hyper-parameters"):
        replicas.stack(stages)


def test_what_differs_between_replicas_is_a_buffer() -> None:
    stages = [nn.ModuleList(Mlp(4, dropout=share).build(torch.Size([4])).modules) for share in (0.1, 0.3)]
    stacked = replicas.stack(stages)
    assert stacked.state_dict()["0.2.probability"].tolist() == pytest.approx([0.1, 0.3])


def test_per_replica_puts_tensors_side_by_side() -> None:
    one, two = torch.arange(12.0).view(4, 3), torch.arange(2.0).view(2, 1)
    assert replicas.per_replica([one, two], 2).shape == (2, 7)
    assert replicas.per_replica([one, two]).shape == (14,)
    assert replicas.per_replica([one, two], 2)[1].tolist() == [6, 7, 8, 9, 10, 11, 1]


def test_own_does_not_depend_on_the_order_of_drawing() -> None:
    def draw(name: str) -> Tensor:
        with replicas.own(name):
            return torch.rand(3)

    torch.manual_seed(5)
    head, trunk = draw("head"), draw("trunk")
    torch.manual_seed(5)
    torch.rand(17)
    assert torch.equal(draw("trunk"), trunk)
    assert torch.equal(draw("head"), head)
    assert not torch.equal(head, trunk)
    torch.manual_seed(6)
    assert not torch.equal(draw("head"), head)


def test_own_nests_and_leaves_no_trace() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with replicas.own("outer", 9):
        torch.rand(5)
        with replicas.own("inner"):
            inner = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with replicas.own("outer", 9), replicas.own("inner"):
        assert torch.equal(torch.rand(2), inner)
    with replicas.own("outer", 10), replicas.own("inner"):
        assert not torch.equal(torch.rand(2), inner)


@given(st.lists(st.integers(0, 2**62), max_size=4))
def test_key_is_a_seed(parts: list[int]) -> None:
    assert 0 <= replicas.key(*parts) < 2**63


def test_keys_of_near_integers_are_unrelated() -> None:
    grid = {replicas.key(a, b) for a, b in product(range(100), repeat=2)}
    assert len(grid) == 100**2
    # The first number that each seed yields, as if drawn from one stream: uniform, and no neighbour predicts the next.
    generator = torch.Generator()
    for vary in (lambda i: (7, i), lambda i: (i, 7)):
        first = torch.tensor(
            [float(torch.rand(1, generator=generator.manual_seed(replicas.key(*vary(i))))) for i in range(2000)]
        )
        assert abs(float(first.mean()) - 0.5) < 0.03
        assert abs(float(torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1])) < 0.08


def sources(n: int) -> list[replicas.Random]:
    made = []
    for i in range(n):
        with replicas.own("source", i):
            made.append(replicas.Random())
    return made


def test_random_is_a_function_of_seed_and_update() -> None:
    source = sources(1)[0]
    first = source.uniform(2, 3)
    assert first.shape == (1, 2, 3)
    torch.rand(9)
    assert torch.equal(source.uniform(2, 3), first)
    replicas.tick(nn.ModuleList([source]))
    assert int(source.update) == 1
    assert not torch.equal(source.uniform(2, 3), first)
    source.update.zero_()
    assert torch.equal(source.uniform(2, 3), first)


def test_random_of_a_replica_does_not_depend_on_its_company() -> None:
    alone = [copy.deepcopy(source) for source in sources(3)]
    together = replicas.stack(sources(3))
    drawn = together.uniform(4)
    assert torch.equal(drawn, torch.cat([source.uniform(4) for source in alone]))
    replicas.select(together, torch.tensor([False, True, True]))
    assert torch.equal(together.uniform(4), drawn[1:])
