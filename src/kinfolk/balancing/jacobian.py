"""The aggregation rules and scalarisers of TorchJD, each as a method by its name.

They are found in the library (:mod:`kinfolk.balancing.library`), so a rule that a later version brings is here too:
``torchjd/aggregation/_upgrad.py`` is ``upgrad``, ``torchjd/scalarization/_stch.py`` is ``stch``. What Kinfolk has
itself goes before. TorchJD supplies the rule; Gramians, Jacobians, replicas, absent tasks and the update are ours.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from kinfolk import replicas
from kinfolk.balancing.base import Balancing, Losses
from kinfolk.balancing.gramian import Gramian, Jacobian
from kinfolk.balancing.library import OWN, SAME, Setting, Source, read
from kinfolk.balancing.wording import FEWEST, NATIVE, SCALES, describe, usual
from kinfolk.data.tasks import Task

FAMILIES: dict[str, type[Balancing]] = {"gramian": Gramian, "jacobian": Jacobian, "losses": Balancing}


# ---- a rule of the library, for some of the tasks of a replica


def _rule(method: Any, tasks: int, dtype: torch.dtype) -> Any:
    """TorchJD's object for so many tasks."""
    if (tasks, dtype) not in method._rules:
        source: Source = method.source
        given: dict[str, Any] = {s.name: getattr(method, s.name) for s in source.settings if not s.vector}
        given |= dict.fromkeys(source.sizes, tasks)
        given |= {s.name: torch.full((tasks,), 1 / tasks) for s in source.settings if s.vector and _required(s)}
        rule = method._rules[tasks, dtype] = getattr(importlib.import_module(source.package), source.title)(**given)
        if source.stateful and source.kind == "gramian":  # makes state of this size and type, which is then replaced
            with torch.random.fork_rng(devices=[]):
                rule.gramian_weighting(torch.eye(tasks, dtype=dtype))
    return method._rules[tasks, dtype]


def _required(setting: Setting) -> bool:
    return setting.default is inspect.Parameter.empty


def _told(method: Any, replica: int, tasks: Tensor, like: Tensor) -> Any:
    """The rule for these tasks of a replica, told the numbers that belong to each task."""
    rule = _rule(method, len(tasks), like.dtype)
    for setting in method.source.settings:
        if setting.vector and getattr(method, setting.name) is not None:
            numbers = method.get_buffer(f"{setting.name}_of_task").view(-1, len(method._names))
            setattr(rule, setting.name, numbers[replica, tasks].to(like))
        elif setting.vector and _required(setting):
            setattr(rule, setting.name, torch.full_like(like, 1 / len(tasks)))
    return rule


@contextmanager
def _drawing(method: Any, replica: int, device: torch.device) -> Iterator[None]:
    """Draws inside depend on the seed of the replica and the update alone."""
    if not method.source.draws:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(replicas.key(int(method.random.seed[replica]), int(method.random.update)))
        yield


@contextmanager
def _remembering(method: Any, rule: nn.Module, replica: int, tasks: Tensor) -> Iterator[None]:
    """Puts the replica's state of these tasks into the rule, and keeps what the rule makes of it."""
    for name, ours in _state(method, replica):
        part = ours[_square(tasks, ours)]
        theirs = getattr(rule, name)
        setattr(rule, name, part.to(theirs.device, theirs.dtype).clone().view_as(theirs))
    yield
    for name, ours in _state(method, replica):
        at = _square(tasks, ours)
        ours[at] = getattr(rule, name).to(ours.device, ours.dtype).view_as(ours[at])


def _state(method: Any, replica: int) -> Iterator[tuple[str, Tensor]]:
    """The library's names of a rule's state, with our tensors of it for one replica."""
    for name, rows in method._remembered:
        stacked = method.get_buffer(f"state{name}")
        yield name, stacked[replica * rows : (replica + 1) * rows]


def _square(tasks: Tensor, state: Tensor) -> Any:
    """Where these tasks stand in ``[1]``, ``[task]`` or ``[task, task]``."""
    if len(state) == 1:
        return ...
    return (tasks,) if state.ndim == 1 else (tasks.unsqueeze(-1), tasks)


# ---- what the methods override


def _setup(method: Any, tasks: Sequence[Task]) -> Any:
    """Numbers by task, state and parameters as the library's rule has them, and a source of random numbers."""
    FAMILIES[method.source.kind].setup(method, tasks)
    for setting in method.source.settings:
        if setting.vector and getattr(method, setting.name) is not None:
            method.register_buffer(f"{setting.name}_of_task", _by_task(method, setting.name, tasks))
    rule = _rule(method, len(tasks), torch.get_default_dtype())
    for name, parameter in rule.named_parameters():
        method.register_parameter(name, nn.Parameter(parameter.detach().clone()))
    if method.source.stateful and method.source.kind == "gramian":
        buffers = [(name, tensor) for name, tensor in rule.gramian_weighting.named_buffers()]
        method._remembered = [(name, len(tensor) if tensor.ndim else 1) for name, tensor in buffers]
        for name, tensor in buffers:
            method.register_buffer(f"state{name}", torch.zeros_like(tensor if tensor.ndim else tensor.view(1)))
    if method.source.draws:
        method.random = replicas.Random()
    return method


def _by_task(method: Any, name: str, tasks: Sequence[Task]) -> Tensor:
    given = getattr(method, name)
    strangers = set(given) - {task.name for task in tasks}
    if strangers and len(tasks) > 1:  # single-task problems see one name of all
        raise ValueError(f"`{name}` must name tasks. Got {', '.join(sorted(strangers))}.")
    rest = 1.0 if name in ("weights", "pref_vector") else 0.0
    return torch.tensor([float(given.get(task.name, rest)) for task in tasks])


def _rows(present: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Every replica with the tasks that it has, if it has any."""
    for replica, one in enumerate(present):
        if bool(one.any()):
            yield replica, one.nonzero().flatten()


def _weights(
    method: Any, gramian: Float[Tensor, "replica task task"], present: Bool[Tensor, "replica task"]
) -> Float[Tensor, "replica task"]:
    """The library's weights of the present tasks. On the CPU, as the matrices are small and the steps many."""
    whole = gramian.cpu().to(torch.promote_types(gramian.dtype, torch.float32))
    found = torch.zeros_like(whole[..., 0])
    power = SCALES.get(method.source.name)
    for replica, tasks in _rows(present.cpu()):
        g = whole[replica, tasks.unsqueeze(-1), tasks]
        size = g.diagonal().mean().clamp(min=torch.finfo(g.dtype).tiny) if power else g.new_ones(())
        found[replica, tasks] = _solve(method, replica, tasks, g / size) * size ** (power(method) if power else 0.0)
    return found.to(gramian)


def _solve(method: Any, replica: int, tasks: Tensor, gramian: Tensor) -> Tensor:
    if len(tasks) < FEWEST.get(method.source.name, lambda _: 1)(method):
        return torch.full_like(gramian[0], 1 / len(tasks))
    rule = _told(method, replica, tasks, gramian[0]).gramian_weighting
    with _drawing(method, replica, gramian.device), _remembering(method, rule, replica, tasks):
        return rule(gramian)


def _combine(
    method: Any, jacobian: Float[Tensor, "replica task param"], present: Bool[Tensor, "replica task"]
) -> Float[Tensor, "replica param"]:
    """What the library makes of the present tasks' gradients."""
    found = torch.zeros_like(jacobian[:, 0])
    for replica, tasks in _rows(present):
        rows = jacobian[replica, tasks]
        if len(tasks) < FEWEST.get(method.source.name, lambda _: 1)(method):
            found[replica] = rows.mean(0)
            continue
        rule = _told(method, replica, tasks, rows[:, 0])
        with _drawing(method, replica, rows.device):
            found[replica] = rule(rows)
    return found


def _total(method: Any, losses: Losses) -> Float[Tensor, "*replica"]:
    """The library's scalar of the present tasks' losses."""
    tasks = losses.value.shape[-1]
    value, seen = losses.value.view(-1, tasks), losses.seen.view(-1, tasks)
    if method.source.logs:
        _require_positive(method, value.detach(), seen)
    wholes = list(value.sum(-1) * 0)
    for replica, at in _rows(seen):
        rule = _told(method, replica, at, value[replica, at].detach())
        ours = {name: p.view(-1, tasks)[replica, at] for name, p in method.named_parameters()}
        wholes[replica] = functional_call(rule, ours, (value[replica, at],))
    return torch.stack(wholes).view(losses.value.shape[:-1])


def _require_positive(method: Any, value: Tensor, seen: Tensor) -> None:
    """Raises ValueError for a loss that has no logarithm."""
    if bool((wrong := (value <= 0) & seen).any()):
        replica, task = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"`{method.source.name}` takes logarithms: every loss must be positive. "
            f"Got {float(value[replica, task]):g} for {method._names[task]}."
        )


# ---- the methods


def _signature(source: Source) -> tuple[inspect.Signature, dict[str, Any]]:
    """Of a method's constructor: the rule's own parameters, then the family's; and their types."""
    family = FAMILIES[source.kind].__init__
    own = [
        inspect.Parameter(
            s.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=usual(source, s), annotation=s.annotation
        )
        for s in source.settings
    ]
    more = [p for p in inspect.signature(family).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    types = {s.name: s.type for s in source.settings} | typing.get_type_hints(family)
    myself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([myself, *own, *more], return_annotation=None), types


def _constructor(source: Source, signature: inspect.Signature, types: dict[str, Any]) -> Any:
    def initialise(method: Any, *positional: Any, **named: Any) -> None:
        bound = signature.bind(method, *positional, **named)
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        own = {s.name: given.pop(s.name) for s in source.settings}
        FAMILIES[source.kind].__init__(method, **given)
        method._rules, method._remembered = {}, []
        for setting in source.settings:
            _keep(method, setting, own[setting.name])
        _rule(method, 3, torch.get_default_dtype())  # raises where the library refuses a value

    initialise.__signature__ = signature
    initialise.__annotations__ = types
    return initialise


def _keep(method: Any, setting: Setting, value: Any) -> None:
    """Keeps a parameter; raises ValueError for a choice that there is not."""
    choices = typing.get_args(setting.type) if typing.get_origin(setting.type) is typing.Literal else (value,)
    if value not in choices:
        raise ValueError(f"`{setting.name}` must be one of {', '.join(choices)}. Got {value!r}.")
    setattr(method, setting.name, float(value) if setting.type is float else value)


def _made(name: str) -> Balancing:
    """An empty method, for copies and other processes: no module has its name."""
    return RULES[name].__new__(RULES[name])


def _method(source: Source) -> type[Balancing]:
    """The class of a rule."""
    signature, types = _signature(source)
    override = {"gramian": ("weights", _weights), "jacobian": ("combine", _combine), "losses": ("total", _total)}
    said: dict[str, Any] = {
        "__doc__": describe(source, [*signature.parameters][1:]),
        "__module__": f"kinfolk.balancing.{source.name}",
        "__init__": _constructor(source, signature, types),
        "__reduce__": lambda method: (_made, (source.name,), method.__getstate__()),
        "source": source,
        "native": NATIVE.get(source.name, "own"),
        "setup": _setup,
        override[source.kind][0]: override[source.kind][1],
    }
    return type(source.title, (FAMILIES[source.kind],), said)


RULES: dict[str, Any] = {
    source.name: _method(source) for source in read(leave=OWN | SAME.keys()) if not source.left_out()
}
"""The methods by name."""
