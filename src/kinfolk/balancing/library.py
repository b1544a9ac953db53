"""What the source of TorchJD says about its aggregation rules and scalarisers.

The source is read, not imported: importing it imports its solvers, which takes as long as all the rest of Kinfolk.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

OWN = frozenset(file.stem for file in Path(__file__).parent.glob("*.py"))
"""The methods that have a file of their own."""

SAME = {
    "constant": "fixed",
    "mean": "fixed",
    "sum": "fixed",
    "random": "random_weights",
    "uw": "uncertainty",
    "excess_mtl": "excess",
}
"""What Kinfolk has under another name."""

KINDS = {
    "GramianWeightedAggregator": "gramian",
    "WeightedAggregator": "jacobian",
    "Aggregator": "jacobian",
    "Scalarizer": "losses",
}
SIZES = ("shape", "n_tasks")  # parameters that are the number of tasks
TYPES: dict[str, tuple[str, Any]] = {
    "float": ("float", float),
    "float | Tensor": ("float", float),
    "int": ("int", int),
    "int | None": ("int | None", int | None),
    "Tensor": ("Mapping[str, float] | None", Mapping[str, float] | None),
    "Tensor | None": ("Mapping[str, float] | None", Mapping[str, float] | None),
}


@dataclass(frozen=True)
class Setting:
    """A parameter of a rule; `default` is empty where the library has none, `vector` a number for each task."""

    name: str
    annotation: str
    type: Any
    default: Any
    vector: bool


@dataclass(frozen=True)
class Source:
    """What is known about a rule.

    Attributes
    ----------
    name, title, package
        As in ``upgrad``, ``UPGrad``, ``torchjd.aggregation``.
    kind
        What it reads: "gramian", "jacobian" or "losses"; "" where it is no rule by itself.
    settings
        Its parameters, but those that no text can express and those that are the number of tasks.
    sizes, others
        Parameters that are the number of tasks; those without a default that no text can express.
    stateful, draws, logs
        Whether it remembers earlier calls, draws random numbers, takes logarithms.
    outside
        What has to be called beside it.
    paper
        Title and address.
    """

    name: str
    title: str
    package: str
    kind: str
    settings: tuple[Setting, ...]
    sizes: tuple[str, ...]
    others: tuple[str, ...]
    stateful: bool
    draws: bool
    logs: bool
    outside: tuple[str, ...]
    paper: tuple[str, str]

    def left_out(self) -> str:
        """Why Kinfolk has no method that is this rule; "" if it has one."""
        if self.name in OWN:
            return "Kinfolk has its own of this name"
        if self.name in SAME:
            return f"Kinfolk has it as {SAME[self.name]}"
        if not self.kind:
            return "no rule for the gradients of one batch: it wants several batches, or wraps another rule"
        if self.outside:
            return f"{self.outside[0]}() must be called at other times than once per update"
        if self.stateful and self.kind == "jacobian":
            return "its state is as large as the gradients, which are unknown when state is made"
        return f"no text can express {self.others[0]}" if self.others else ""


def read(leave: Collection[str] = ()) -> list[Source]:
    """Every rule that the library exports, by name, but for the names to leave."""
    found = importlib.util.find_spec("torchjd")
    folder = Path(next(iter(found.submodule_search_locations or ()))) if found else Path()
    sources = [
        _source(folder / package, file, titles)
        for package in ("aggregation", "scalarization")
        for file, titles in _exports(folder / package / "__init__.py")
        if file.lstrip("_") not in leave
    ]
    return sorted(sources, key=lambda source: source.name)


def _exports(package: Path) -> Iterator[tuple[str, list[str]]]:
    """The files of a package with the classes that it exports from each, but for the files of its bases."""
    for node in ast.parse(package.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and not re.search("_bases?$", node.module):
            yield node.module, [alias.name for alias in node.names]


def _source(package: Path, file: str, titles: list[str]) -> Source:
    tree = ast.parse((package / f"{file}.py").read_text(encoding="utf-8"))
    title = next((title for title in titles if not title.endswith("Weighting")), titles[0])
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    bases = [ast.unparse(base).partition("[")[0] for base in classes[title].bases]
    settings, sizes, others = _parameters(classes[title], tree)
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return Source(
        name=file.lstrip("_"),
        title=title,
        package=f"torchjd.{package.name}",
        kind=next((KINDS[base] for base in bases if base in KINDS), ""),
        settings=settings,
        sizes=sizes,
        others=others,
        stateful="Stateful" in bases,
        draws=any(name.startswith("torch.rand") for name in called),
        logs="torch.log" in called,
        outside=_outside(classes[title]),
        paper=_paper(classes[title]),
    )


def _parameters(node: ast.ClassDef, tree: ast.Module) -> tuple[tuple[Setting, ...], tuple[str, ...], tuple[str, ...]]:
    """The settings, those that are sizes, and those that cannot be had."""
    aliases = {ast.unparse(one.target): one.value for one in tree.body if isinstance(one, ast.AnnAssign) and one.value}
    made = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    settings, sizes, others = [], [], []
    arguments = made.args.args[1:] if made else []
    defaults = [None] * (len(arguments) - len(made.args.defaults)) + made.args.defaults if made else []
    for argument, default in zip(arguments, defaults, strict=True):
        annotation = argument.annotation and aliases.get(ast.unparse(argument.annotation), argument.annotation)
        typed = _type(annotation)
        if argument.arg in SIZES:
            sizes.append(argument.arg)
        elif typed:
            value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
            vector = "Mapping" in typed[0]
            settings.append(Setting(argument.arg, *typed, value, vector))
        elif default is None:
            others.append(argument.arg)
    return tuple(settings), tuple(sizes), tuple(others)


def _type(annotation: ast.expr | None) -> tuple[str, Any] | None:
    """As written in Kinfolk, and the type; None for what no text can express."""
    if annotation is None:
        return None
    text = ast.unparse(annotation)
    if text.startswith("Literal["):
        return text, Literal[ast.literal_eval(text.removeprefix("Literal[").removesuffix("]"))]
    return TYPES.get(text)


def _outside(node: ast.ClassDef) -> tuple[str, ...]:
    """Public functions, but for properties, that are not called by a plain call."""
    functions = [one for one in node.body if isinstance(one, ast.FunctionDef) and not one.decorator_list]
    return tuple(one.name for one in functions if not one.name.startswith("_") and one.name not in ("forward", "reset"))


def _paper(node: ast.ClassDef) -> tuple[str, str]:
    """Title and address of the first paper that the docstring links to."""
    text = " ".join((ast.get_docstring(node) or "").split())
    found = re.search(r"`([^`<]+?) <(https?://[^>]+)>`_", text)
    return (re.sub(r" \([^)]*\)$", "", found[1]), found[2]) if found else ("", "")
