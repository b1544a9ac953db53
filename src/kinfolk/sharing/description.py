"""The pattern of a sharing as text: which part of the network serves which tasks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from kinfolk.catalogue import text_of
from kinfolk.replicas import own
from kinfolk.sharing.base import MadeFor, Sharing, reach
from kinfolk.trunks.looped import Looped

ROWS = 16  # random rows that are sent through: on one row alone a ReLU may rest
MOST = 4  # tasks, or groups of slices, that are named in a line
LISTS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList)

Slices = Sequence[frozenset[int]]


@dataclass(frozen=True)
class _Part:
    """A module or parameter of the network, and what it is made of where that serves different tasks."""

    name: str
    kind: str
    serves: str
    numbers: int
    below: tuple[_Part, ...] = ()


def describe(model: Sharing) -> str:
    """The sharing pattern of a network as a tree: which stage serves which tasks, with numbers of parameters.

    It is found by sending NaN back through the network (:func:`~kinfolk.sharing.base.reach`), so it is right for any
    sharing, a user's own too. Parameters are those of one replica. Where the slices of a stacked part serve different
    tasks, they are told in groups. A module that is ``Looped`` runs once per copy.

    Parameters
    ----------
    model
        A network after ``setup``, of one replica or stacked; the networks of a saved model are
        ``kinfolk.load(path).networks()``. It is not changed.

    Returns
    -------
    str
        Several lines, to be printed.

    Raises
    ------
    ValueError
        If the network has not been set up.

    Examples
    --------
    >>> from kinfolk.data.tasks import Task
    >>> from kinfolk.sharing import Hard
    >>> from kinfolk.trunks import Mlp
    >>> tasks = [Task(name, "regression") for name in ("read", "write", "math")]
    >>> print(describe(Hard().setup(Mlp(width=8), tasks, torch.Size([5]))))
    hard · 3 tasks (read, write, math) · 147 parameters
    ├─ trunk                   shared by all           120
    │  ├─ 0            Chain   shared by all            48
    │  └─ 1            Chain   shared by all            72
    └─ heads.layers.0  Linear  3 slices, one per task   27
    """
    if model.made_for is None:
        raise ValueError("`model` must be set up before it is described. Call its `setup` first.")
    made = model.made_for
    found, alike = _pattern(model, made)
    names = [task.name for task in made.tasks]
    numbers = {n: p.numel() // len(p) * made.slices[n] for n, p in model.named_parameters()}
    parts = list(_parts(model, "", found, numbers, names))
    replicas = _replicas(model, made)
    shown = [task.name if task.main else f"{task.name}: auxiliary" for task in made.tasks]
    head = (
        f"{_title(model)} · {_plural(len(names), 'task')} ({_listed(shown, 12)}) · {sum(numbers.values()):,} parameters"
    )
    lines = [head + (f" in each of {replicas} replicas" if replicas > 1 else ""), *_table(_drawn(parts))]
    if any(isinstance(module, Looped) for module in model.modules()):
        lines.append("Looped: a module of its own kind, run once per copy; slower than stacked layers.")
    if not alike:
        lines.append("The replicas differ in what serves whom: the first is shown.")
    return "\n".join(lines)


def _replicas(model: Sharing, made: MadeFor) -> int:
    name, parameter = next(model.named_parameters())
    return len(parameter) // made.slices[name]


def _pattern(model: Sharing, made: MadeFor) -> tuple[dict[str, Slices], bool]:
    """The tasks that each slice of each parameter serves, in the first replica; and whether all replicas are alike."""
    replicas = _replicas(model, made)
    with own("describe", 0):
        x = torch.randn(replicas, ROWS, *made.inputs)
    with torch.enable_grad():  # on a copy: a forward pass may leave its gates in the network
        served = reach(copy.deepcopy(model), x.to(next(model.parameters())))
    apart = {name: one.unflatten(0, (replicas, -1)) for name, one in served.items()}
    alike = all(bool((one == one[:1]).all()) for one in apart.values())
    return {name: _sets(one[0]) for name, one in apart.items()}, alike


def _sets(served: Bool[Tensor, "slice task"]) -> Slices:
    return tuple(frozenset(row.nonzero().flatten().tolist()) for row in served)


def _parts(
    module: nn.Module, at: str, found: Mapping[str, Slices], numbers: Mapping[str, int], tasks: Sequence[str]
) -> Iterator[_Part]:
    """The children and parameters of a module, each with its own parts unless these all serve alike."""
    for name, child in module.named_children():
        inside = {n: s for n, s in found.items() if n.startswith(f"{at}{name}.")}
        if not inside and not isinstance(module, LISTS):
            continue  # a stage without parameters keeps its place among the stages; nothing else is worth a line
        patterns = list(set(inside.values()))
        below: list[_Part] = []
        if len(patterns) > 1 or any(isinstance(part, LISTS) for part in child.modules()):
            below = list(_parts(child, f"{at}{name}.", found, numbers, tasks))
        if len(below) == 1:
            yield replace(below[0], name=f"{name}.{below[0].name}")
            continue
        serves = _serves(patterns[0], tasks) if len(patterns) == 1 else "" if patterns else "no parameters"
        yield _Part(name, _kind(child), serves, sum(numbers[n] for n in inside), tuple(below))
    for name, _ in module.named_parameters(recurse=False):
        if f"{at}{name}" in found:  # one that is tied to another is told of there
            yield _Part(name, "parameter", _serves(found[f"{at}{name}"], tasks), numbers[f"{at}{name}"])


def _kind(module: nn.Module) -> str:
    """A module's class; of a looped one, the class of the module that is run."""
    if isinstance(module, LISTS):
        return ""
    if isinstance(module, Looped):
        return f"Looped {module.module.partition('(')[0]}"
    inside = any(isinstance(part, Looped) for part in module.modules())
    return f"{type(module).__name__}{' of Looped' if inside else ''}"


def _serves(slices: Slices, tasks: Sequence[str]) -> str:
    """Whom the slices of a part serve, alike ones together."""
    groups: dict[frozenset[int], int] = {}
    for one in slices:
        groups[one] = groups.get(one, 0) + 1
    if len(slices) == 1:
        return _who(slices[0], tasks)
    count = f"{len(slices)} slices"
    if len(groups) == 1:
        return f"{count}, each {_who(slices[0], tasks)}"
    each = set(groups.values())
    if all(len(one) == 1 for one in groups) and len(each) == 1:
        served = "" if len(groups) == len(tasks) else ": " + _listed([tasks[min(one)] for one in groups])
        return f"{count}, {'one' if each == {1} else each.pop()} per task{served}"
    return f"{count}: {_listed([f'{n} {_who(one, tasks)}' for one, n in groups.items()])}"


def _who(served: frozenset[int], tasks: Sequence[str]) -> str:
    if not served:
        return "for no task"
    if len(served) == 1:
        return f"for {tasks[min(served)]}"
    return "shared by all" if len(served) == len(tasks) else f"shared by {_listed([tasks[i] for i in sorted(served)])}"


def _listed(items: Sequence[str], most: int = MOST) -> str:
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def _plural(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _title(model: Sharing) -> str:
    """The method as it is written in an arm; the class of a sharing that is not of the catalogue."""
    kind = type(model)
    return text_of(model) if kind.__module__.startswith("kinfolk.sharing.") else kind.__name__


def _drawn(parts: Sequence[_Part], before: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A row of the table per part: its place in the tree, kind, whom it serves, parameters."""
    for i, part in enumerate(parts):
        branch, under = ("└─ ", "   ") if i == len(parts) - 1 else ("├─ ", "│  ")
        yield f"{before}{branch}{part.name}", part.kind, part.serves, f"{part.numbers:,}" if part.numbers else ""
        yield from _drawn(part.below, before + under)


def _table(rows: Iterator[tuple[str, str, str, str]]) -> list[str]:
    cells = list(rows)
    name, kind, serves, numbers = (max((len(row[i]) for row in cells), default=0) for i in range(4))
    return [f"{a:<{name}}  {b:<{kind}}  {c:<{serves}}  {d:>{numbers}}".rstrip() for a, b, c, d in cells]
