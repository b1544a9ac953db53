"""Text ``mmoe(experts=4)`` <-> object; lists and describes methods.

A catalogue is a package such as :mod:`kinfolk.sharing`. Every file in it but the bases is one method; the
method's name is the file's, its hyper-parameters are those of its constructor, and what is said about it
stands in its docstring. Nothing is registered anywhere else.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        _check(method, term)
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


def options(method: Callable[..., Any]) -> list[str]:
    """The names of a method's hyper-parameters.

    >>> options(Catalogue)
    ['title', 'package']
    """
    return list(_parameters(method))


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
    parameters = _parameters(kind)
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


def _parameters(method: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(method).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind not in variable}


# ---- arguments against signatures


def _check(method: Callable[..., Any], term: Term) -> None:
    """Raise InputError for an argument that is unknown, missing or of a wrong type."""
    parameters = _parameters(method)
    types_of = _types(method)
    for name, value in term.arguments:
        if name not in parameters:
            if not parameters:
                raise InputError(f"'{term.name}' takes no arguments. Got '{name}'.")
            raise unknown(f"argument of '{term.name}'", name, parameters)
        if not _fits(value, types_of.get(name, Any)):
            wanted = str(parameters[name].annotation).replace("|", "or").replace("bool", "True or False")
            raise InputError(f"`{name}` of '{term.name}' must be {wanted}. Got {write(value)}.")
    given = dict(term.arguments)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise InputError(f"'{term.name}' needs the argument `{name}`, as in {term.name}({name}=...).")


def _types(method: Callable[..., Any]) -> dict[str, Any]:
    function = method.__init__ if isinstance(method, type) else method
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations that only a type checker imports: then the constructor judges alone
        return {}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether `value` is of a type; True for types that no text can be told to be of."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if wanted in (int, float):
        return isinstance(value, (int, wanted)) and not isinstance(value, bool)
    if wanted in (bool, str, type(None)):
        return isinstance(value, wanted)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value if inner)
    return True


# ---- documentation


def _describe(name: str, title: str, method: Callable[..., Any]) -> Method:
    sections = _sections(inspect.cleandoc(method.__doc__ or ""))
    said = _definitions(sections.get("Parameters", []))
    parameters = tuple(
        Parameter(
            parameter.name,
            None if parameter.default is parameter.empty else _shown(parameter.default),
            "" if parameter.annotation is parameter.empty else str(parameter.annotation),
            said.get(parameter.name, ""),
        )
        for parameter in _parameters(method).values()
    )
    listed = ", ".join(p.name if p.default is None else f"{p.name}={p.default}" for p in parameters)
    summary = " ".join(itertools.takewhile(bool, sections[""]))
    return Method(name, title, summary, _first_reference(sections), parameters, f"{name}({listed})" if listed else name)


def _shown(value: Any) -> str:
    try:
        return write(value)
    except ValueError:
        return repr(value)


def _sections(text: str) -> dict[str, list[str]]:
    """The lines of a NumPy docstring by section; those before the first section by ""."""
    found: dict[str, list[str]] = {"": []}
    lines = text.splitlines()
    current = ""
    for line, following in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        if line and set(following.strip()) == {"-"}:
            current = line.strip()
            found[current] = []
        elif set(line.strip()) != {"-"}:
            found[current].append(line.rstrip())
    return found


def _definitions(lines: list[str]) -> dict[str, str]:
    """Descriptions by name, from lines such as ``width : int`` or ``a, b`` with indented lines under them."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            names = [name.strip() for name in line.partition(":")[0].split(",")]
        for name in names if line.startswith(" ") else ():
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _first_reference(sections: dict[str, list[str]]) -> str:
    lines = itertools.takewhile(bool, sections.get("References", []))
    text = " ".join(line.strip() for line in lines).split(" .. [")[0]
    return re.sub(r"^\.\. \[\w+\] ", "", text)
