"""The rules of TorchJD as methods: which there are, that they are the library's, their state, draws and errors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
import torchjd.aggregation
import torchjd.scalarization
from torch import Tensor

import kinfolk.balancing
from kinfolk import replicas
from kinfolk.balancing import library
from kinfolk.balancing.base import Losses
from kinfolk.balancing.jacobian import RULES
from kinfolk.catalogue import CATALOGUES, parse, text_of
from kinfolk.data.tasks import Task
from kinfolk.exceptions import InputError

NAMES = ("a", "b", "c", "d", "e")
J = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
ALL = torch.ones(1, 5, dtype=torch.bool)
KINDS = {source.name: source.kind for source in library.read() if source.name in RULES}


def tasks(count: int = 5) -> list[Task]:
    return [Task(name, "regression") for name in NAMES[:count]]


def made(text: str, count: int = 5) -> Any:
    (term,) = parse(text)
    return CATALOGUES["balancing"].make(term).setup(tasks(count))


# ---- which there are


def test_every_rule_of_the_library_is_here_or_left_out_for_a_reason() -> None:
    exported = {
        title.removesuffix("Weighting")
        for package in (torchjd.aggregation, torchjd.scalarization)
        for title in package.__all__
    } - {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "Scalarizer", ""}
    sources = library.read()
    assert {source.title.removesuffix("Weighting") for source in sources} == exported
    assert set(RULES) == {source.name for source in sources if not source.left_out()}
    left_out = {source.name: source.left_out() for source in sources if source.left_out()}
    several = "no rule for the gradients of one batch: it wants several batches, or wraps another rule"
    assert {name for name, why in left_out.items() if why == several} == {"cr_mogm", "modo", "sdmgrad"}
    for name, why in left_out.items():
        ours = name if "its own" in why else why.removeprefix("Kinfolk has it as ")
        if why != several:
            assert ours in CATALOGUES["balancing"].names(), name


def test_what_could_not_be_driven() -> None:
    """The criteria, on rules of the library that Kinfolk has in files of their own."""
    by_name = {(source.name, source.kind): source for source in library.read()}
    assert by_name["famo", "losses"].outside == ("update",)
    assert by_name["dwa", "losses"].outside == ("step",)
    excess = by_name["excess_mtl", "jacobian"]
    assert excess.stateful
    assert excess.kind == "jacobian"


def test_they_are_exported_under_the_librarys_names() -> None:
    assert kinfolk.balancing.UPGrad is RULES["upgrad"]
    assert kinfolk.balancing.STCH is RULES["stch"]


def test_importing_balancing_does_not_import_torchjd() -> None:
    code = "import sys, kinfolk.balancing; print('torchjd' in sys.modules, 'UPGrad' in vars(kinfolk.balancing))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_the_text_of_a_rule() -> None:
    text = "upgrad(pref_vector={a: 2.0}, at=features, every=10)"
    assert text_of(made(text)) == text
    assert text_of(made("fairgrad(alpha=2)")) == "fairgrad"
    method = {method.name: method for method in CATALOGUES["balancing"].describe()}
    assert method["aligned_mtl"].signature.startswith("aligned_mtl(pref_vector=None, scale_mode=min, at=parameters")
    assert method["graddrop"].reference.startswith("Z. Chen et al. (2020). Just Pick a Sign")
    assert "held at once" in (RULES["graddrop"].__doc__ or "")


@pytest.mark.parametrize("name", sorted(RULES))
def test_copies_and_other_processes(name: str) -> None:
    method = made(name)
    for again in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):  # noqa: S301 - our own
        assert type(again) is RULES[name]
        assert again.state_dict().keys() == method.state_dict().keys()


# ---- that they are the library's


def answer(method: Any, jacobian: Tensor = J) -> Tensor:
    """What a rule says to a Jacobian, for its first replica."""
    if method.source.kind == "gramian":
        return method.weights((jacobian @ jacobian.T)[None], ALL[:, : len(jacobian)])[0]
    return method.combine(jacobian[None], ALL[:, : len(jacobian)])[0]


SETTINGS = {
    "config": ("pref_vector={a: 2.0}", {"pref_vector": torch.tensor([2.0, 1, 1, 1, 1], dtype=torch.float64)}),
    "dualproj": ("pref_vector={a: 2.0}", {"pref_vector": torch.tensor([2.0, 1, 1, 1, 1], dtype=torch.float64)}),
    "graddrop": ("leak={b: 0.5}", {"leak": torch.tensor([0.0, 0.5, 0, 0, 0], dtype=torch.float64)}),
    "krum": ("n_byzantine=1, n_selected=2", {"n_byzantine": 1, "n_selected": 2}),
    "trimmed_mean": ("trim_number=2", {"trim_number": 2}),
    "fairgrad": ("alpha=1.5", {"alpha": 1.5}),
    "pcd": ("tau=0.1", {"tau": 0.1}),
}


@pytest.mark.parametrize("name", sorted(name for name, kind in KINDS.items() if kind != "losses"))
def test_it_is_the_librarys(name: str) -> None:
    text, settings = SETTINGS.get(name, ("", {}))
    method = made(f"{name}({text})")
    rule = getattr(torchjd.aggregation, method.source.title)(**settings)
    for update in range(3):
        jacobian = J * (1 + update)
        if method.source.draws:
            method.random.update.fill_(update)
            torch.manual_seed(replicas.key(int(method.random.seed), update))
        expected = rule(jacobian)
        found = answer(method, jacobian)
        found = found if method.source.kind == "jacobian" else found @ jacobian
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("cosmos", torchjd.scalarization.COSMOS(1.0, torch.full((5,), 0.2))),
        ("geometric_mean", torchjd.scalarization.GeometricMean()),
        ("imtl_l", torchjd.scalarization.IMTLL(5)),
        ("pbi(reference={b: 0.5})", torchjd.scalarization.PBI(5.0, torch.full((5,), 0.2), torch.eye(5)[1] / 2)),
        ("stch(weights={c: 3.0})", torchjd.scalarization.STCH(1.0, torch.tensor([1.0, 1, 3, 1, 1]))),
    ],
)
def test_a_scalariser_is_the_librarys(text: str, rule: Any) -> None:
    values = torch.tensor([[0.5, 1.0, 2.0, 0.1, 3.0], [4.0, 1.0, 1.0, 0.2, 0.3]])
    method = replicas.stack([made(text), made(text)])
    found = method.total(Losses(values))
    torch.testing.assert_close(found, torch.stack([rule(one) for one in values]))


def test_every_rule_is_compared() -> None:
    scalarisers = {"cosmos", "geometric_mean", "imtl_l", "pbi", "stch"}
    assert {name for name, kind in KINDS.items() if kind == "losses"} == scalarisers


# ---- state and draws


@pytest.mark.parametrize("name", ["gradvac", "pcd"])
def test_state_belongs_to_the_replica(name: str) -> None:
    """Stacked, selected and stored, a replica goes on as it would have alone."""
    singles = [made(name) for _ in range(3)]
    stacked = replicas.stack([copy.deepcopy(one) for one in singles])
    jacobians = torch.randn(2, 3, 5, 9, dtype=torch.float64)

    def step(method: Any, jacobian: Tensor) -> Tensor:
        found = method.weights(jacobian @ jacobian.mT, ALL.expand(len(jacobian), 5))
        replicas.tick(method)
        return found

    together = step(stacked, jacobians[0])
    alone = torch.cat([step(one, jacobians[0, i : i + 1]) for i, one in enumerate(singles)])
    torch.testing.assert_close(together, alone)
    state = {key: tensor.clone() for key, tensor in stacked.state_dict().items()}
    replicas.select(stacked, torch.tensor([True, False, True]))
    second = step(stacked, jacobians[1, ::2])
    torch.testing.assert_close(second[1], step(singles[2], jacobians[1, 2:])[0])
    fresh = made(name)
    replicas.load(fresh, state)
    assert torch.equal(step(fresh, jacobians[1])[::2], second)


@pytest.mark.parametrize("name", ["gradvac", "pcd"])
def test_state_of_an_absent_task_stays(name: str) -> None:
    method = made(name)
    answer(method)
    before = {key: tensor.clone() for key, tensor in method.named_buffers() if key.startswith("state")}
    present = torch.tensor([[True, False, True, True, True]])
    found = method.weights((J @ J.T)[None] * 2, present)
    assert found[0, 1] == 0
    for key, tensor in method.named_buffers():
        if key in before and len(tensor) > 1:
            assert torch.equal(tensor[1], before[key][1])
            assert not torch.equal(tensor[0], before[key][0])


@pytest.mark.parametrize("name", ["gradvac", "graddrop"])
def test_draws_depend_on_seed_and_update_alone(name: str) -> None:
    method, before = made(name), torch.random.get_rng_state()
    fresh = copy.deepcopy(method)
    first = answer(method)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(answer(fresh), first)
    replicas.tick(method)
    replicas.tick(fresh)
    fresh.random.seed.add_(1)
    assert not torch.equal(answer(fresh), answer(method))


def test_rules_that_draw_are_known() -> None:
    assert {name for name, rule in RULES.items() if rule.source.draws} == {"gradvac", "graddrop"}
    assert {name for name, rule in RULES.items() if rule.source.stateful} == {"gradvac", "pcd", "imtl_l"}


# ---- absent tasks and bad input


@pytest.mark.parametrize("name", sorted(set(RULES) - {"gradvac"}))  # whose order is another with fewer tasks
def test_an_absent_task_is_one_that_is_not_there(name: str) -> None:
    torch.manual_seed(1)
    whole = made(name)
    torch.manual_seed(1)
    small = CATALOGUES["balancing"].get(name)().setup([task for task in tasks() if task.name != "b"])
    on = torch.tensor([True, False, True, True, True])
    present = torch.ones(1, 4, dtype=torch.bool)
    if KINDS[name] == "gramian":
        rows = torch.where(on.unsqueeze(-1), J, 0)
        found = whole.weights((rows @ rows.T)[None], on[None])[0][on]
        torch.testing.assert_close(found, small.weights((J[on] @ J[on].T)[None], present)[0])
    elif KINDS[name] == "jacobian":
        torch.testing.assert_close(whole.combine(J[None], on[None]), small.combine(J[on][None], present))
    else:
        value = torch.tensor([[0.5, 0.0, 2.0, 0.1, 3.0]])
        torch.testing.assert_close(whole.total(Losses(value, on[None])), small.total(Losses(value[:, on], present)))


@pytest.mark.parametrize("name", sorted(RULES))
def test_nothing_is_there(name: str) -> None:
    none = torch.zeros(1, 5, dtype=torch.bool)
    method = made(name)
    if KINDS[name] == "gramian":
        assert not bool(method.weights(torch.zeros(1, 5, 5), none).any())
    elif KINDS[name] == "jacobian":
        assert not bool(method.combine(torch.zeros(1, 5, 9), none).any())
    else:
        assert method.total(Losses(torch.zeros(1, 5), none)).tolist() == [0]


@pytest.mark.parametrize("name", ["krum", "trimmed_mean"])
def test_too_few_tasks_for_a_rule_make_the_mean(name: str) -> None:
    two = answer(made(name, 2), jacobian=J[:2])
    torch.testing.assert_close(two @ J[:2] if KINDS[name] == "gramian" else two, J[:2].mean(0))


def test_a_logarithm_of_a_loss_that_is_not_positive() -> None:
    method = made("geometric_mean")
    with pytest.raises(ValueError, match=r"takes logarithms: every loss must be positive. Got -0.5 for c."):
        method.backward(torch.tensor([1.0, 2.0, -0.5, 1.0, 1.0], requires_grad=True))
    absent = Losses(torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0]), torch.tensor([True, True, False, True, True]))
    assert method.total(absent).isfinite()


def test_wrong_values() -> None:
    with pytest.raises(InputError, match=r"scale_mode` of 'aligned_mtl' must be .*Got max"):
        made("aligned_mtl(scale_mode=max)")
    with pytest.raises(ValueError, match=r"`scale_mode` must be one of min, median, rmse. Got 'max'"):
        RULES["aligned_mtl"](scale_mode="max")
    with pytest.raises(InputError, match=r"krum\(n_byzantine=-1\): n_byzantine must be non-negative"):
        made("krum(n_byzantine=-1)")
    with pytest.raises(ValueError, match=r"`pref_vector` must name tasks. Got z"):
        made("upgrad(pref_vector={z: 1})")
    with pytest.raises(ValueError, match="`every` must be at least 1"):
        made("upgrad(every=0)")
    with pytest.raises(InputError, match=r"Unknown argument of 'upgrad' 'pref'. Did you mean 'pref_vector'"):
        made("upgrad(pref={a: 1})")
