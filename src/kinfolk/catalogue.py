"""Text ``mmoe(experts=4)`` <-> object; lists and describes methods.

A catalogue is a package such as :mod:`kinfolk.sharing`. Every file in it but the bases is one method; the
method's name is the file's, its hyper-parameters are those of its constructor, and what is said about it
stands in its docstring. Nothing is registered anywhere else.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kinfolk import docstrings, signatures
from kinfolk.exceptions import InputError, unknown
from kinfolk.terms import Term as Term
from kinfolk.terms import parse as parse
from kinfolk.terms import write

BASES = (
    *("origin", "idx", "matlab", "pictures"),  # of datasets
    *("base", "stages", "convolution", "looped"),  # of trunks
    *("heads", "copies", "description", "grouping"),  # of sharing
    *("results", "running", "evolving_table", "halves"),  # of studies
    *("nodes", "rows", "layers", "norms", "passes", "gramian", "library", "wording", "jacobian"),  # of balancing
)
"""Files of a catalogue that hold no method."""


# ---- catalogues


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: `default` and `annotation` as text, default None where a value must be given."""

    name: str
    default: str | None
    annotation: str
    description: str


@dataclass(frozen=True)
class Method:
    """What is known about a method; `signature` is as in ``mmoe(experts=4)``."""

    name: str
    catalogue: str
    summary: str
    reference: str
    parameters: tuple[Parameter, ...]
    signature: str


@dataclass(frozen=True)
class Catalogue:
    """The methods that a package exports.

    Parameters
    ----------
    title
        As users see it.
    package
        Its full name. It is imported when it is asked for something, as it may import torch.
    """

    title: str
    package: str

    def names(self) -> list[str]:
        """The names of its methods, sorted."""
        return sorted(self._methods())

    def get(self, name: str) -> Callable[..., Any]:
        """The class, or function, of a method; InputError for an unknown name."""
        methods = self._methods()
        if name not in methods:
            raise unknown(f"name in {self.title}", name, sorted(methods))
        return methods[name]

    def make(self, term: Term) -> Any:
        """The object that `term` describes.

        Raises
        ------
        InputError
            For an unknown name, an unknown, missing or wrong argument.
        """
        method = self.get(term.name)
        signatures.check(method, term)
        try:
            return method(**dict(term.arguments))
        except (ValueError, TypeError) as error:
            raise InputError(f"{term}: {error}") from error

    def describe(self) -> list[Method]:
        """Its methods, from signatures and docstrings."""
        return [_describe(name, self.title, self.get(name)) for name in self.names()]

    def _methods(self) -> dict[str, Callable[..., Any]]:
        package = importlib.import_module(self.package)
        found: dict[str, Callable[..., Any]] = {}
        for exported in vars(package).values():
            parent, _, name = getattr(exported, "__module__", "").rpartition(".")
            if not callable(exported) or parent != self.package or name in BASES:
                continue
            if inspect.isfunction(exported) and exported.__name__ != name:
                continue  # beside the method: the splits of a data set
            if found.setdefault(name, exported) is not exported:
                raise ValueError(f"{self.package} must export one object of {name}.py. It exports two.")
        return found


CATALOGUES: dict[str, Catalogue] = {
    title: Catalogue(title, f"kinfolk.{title}")
    for title in ("trunks", "sharing", "auxiliary", "penalties", "balancing", "datasets")
}
"""All catalogues of what an arm is made of, and of data, by title: a name is in one of them only."""

STUDIES = Catalogue("studies", "kinfolk.studies")
"""The published experiments. They have names of their own: `uncertainty` is a balancing method and a study."""


def find(name: str) -> tuple[str, Callable[..., Any]]:
    """The title of the catalogue that has a method of this name, and its class or function.

    Raises
    ------
    InputError
        For an unknown name.
    """
    known: list[str] = []
    for title, catalogue in CATALOGUES.items():
        names = catalogue.names()
        if name in names:
            return title, catalogue.get(name)
        known += names
    raise unknown("method", name, known)


def text_of(method: object) -> str:
    """A method's text, with the arguments that differ from the defaults.

    Values are read from the attributes that are named as the constructor's parameters; a tensor with one
    number counts as that number.

    Raises
    ------
    ValueError
        When such an attribute is missing, or is nothing that can be written, as a user's own module.
    """
    kind = type(method)
    parameters = signatures.parameters(kind)
    # A constructor may keep another form of its default, such as {} for None, so look at what it keeps.
    can = all(parameter.default is not parameter.empty for parameter in parameters.values())
    usual = kind() if can else None
    arguments = []
    for name, parameter in parameters.items():
        if not hasattr(method, name):
            raise ValueError(f"{kind.__name__} must keep its parameter `{name}` as an attribute.")
        value = _plain(getattr(method, name))
        if value not in (parameter.default, _plain(getattr(usual, name, parameter.default))):
            arguments.append((name, value))
    return str(Term(_name_of(kind), tuple(arguments)))


def _plain(value: Any) -> Any:
    """`value`, or the number or list in a tensor or array."""
    if not hasattr(value, "tolist"):
        return value
    single = str(value.dtype).endswith("float32")
    numbers = value.reshape(-1).tolist()
    if single:  # 0.1 is 0.10000000149 there
        numbers = [float(f"{number:.7g}") for number in numbers]
    return numbers[0] if len(set(numbers)) == 1 else numbers  # [1], or one number for each of several replicas


def _name_of(method: Any) -> str:
    return method.__module__.rpartition(".")[2]


# ---- documentation


def _describe(name: str, title: str, method: Callable[..., Any]) -> Method:
    sections = docstrings.sections(inspect.cleandoc(method.__doc__ or ""))
    said = docstrings.definitions(sections.get("Parameters", []))
    parameters = tuple(
        Parameter(
            parameter.name,
            None if parameter.default is parameter.empty else _shown(parameter.default),
            "" if parameter.annotation is parameter.empty else str(parameter.annotation),
            said.get(parameter.name, ""),
        )
        for parameter in signatures.parameters(method).values()
    )
    listed = ", ".join(p.name if p.default is None else f"{p.name}={p.default}" for p in parameters)
    summary = " ".join(itertools.takewhile(bool, sections[""]))
    signature = f"{name}({listed})" if listed else name
    return Method(name, title, summary, docstrings.first_reference(sections), parameters, signature)


def _shown(value: Any) -> str:
    try:
        return write(value)
    except ValueError:
        return repr(value)
