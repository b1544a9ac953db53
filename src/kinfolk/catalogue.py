"""Text ``mmoe(experts=4)`` <-> object; lists and describes methods.

A catalogue is a package such as :mod:`kinfolk.sharing`. Every file in it but the bases is one method; the
method's name is the file's, its hyper-parameters are those of its constructor, and what is said about it
stands in its docstring. Nothing is registered anywhere else.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import keyword
import math
import re
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kinfolk.exceptions import InputError, unknown

BASES = ("base", "stages", "heads")
"""Files of a catalogue that hold no method."""

_EXAMPLE = "Write names joined by '+', as in 'mlp(width=128) + hard + uncertainty'."
_CONSTANTS = {"inf": math.inf, "nan": math.nan}


# ---- text


@dataclass(frozen=True)
class Term:
    """A method's name and arguments, as written in the text of an arm.

    Parameters
    ----------
    name
        Of the method.
    arguments
        Pairs of name and value. Values are numbers, texts, True, False, None, and lists, tuples and
        dictionaries of these.

    Raises
    ------
    ValueError
        When something cannot be written as text.

    Examples
    --------
    >>> str(Term("mlp", (("width", 64), ("norm", "layer"))))
    'mlp(width=64, norm=layer)'
    """

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        names = [self.name, *(name for name, _ in self.arguments)]
        if wrong := [name for name in names if not _is_name(name)]:
            raise ValueError(f"The name of a method or argument must be a Python name. Got {wrong[0]!r}.")
        if len(set(names[1:])) < len(names) - 1:
            raise ValueError(f"An argument of '{self.name}' is given twice: {', '.join(names[1:])}.")
        str(self)  # raises for values that have no text

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}({', '.join(f'{name}={_write(value)}' for name, value in self.arguments)})"

    def __hash__(self) -> int:
        # Values may be lists. 1, 1.0 and True are equal and would have to have the same hash, so they are left out.
        return hash((self.name, tuple(name for name, _ in self.arguments)))


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a text such as ``mlp(width=128) + hard``.

    Arguments are Python literals; a bare word is a text, and ``inf`` is infinity. No code is run.

    Raises
    ------
    InputError
        For a text that has another form.

    Examples
    --------
    >>> [str(term) for term in parse("mlp( width = 128,norm='layer' )+hard")]
    ['mlp(width=128, norm=layer)', 'hard']
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's compiler, e.g. about odd escapes in quotes
            node: ast.expr = ast.parse(text.strip(), mode="eval").body
        terms: list[Term] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            terms.append(_read_term(node.right))
            node = node.left
        terms.append(_read_term(node))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        why = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise InputError(f"{shown!r} cannot be read as an arm: {why.rstrip('.')}. {_EXAMPLE}") from None
    return tuple(reversed(terms))


def _read_term(node: ast.expr) -> Term:
    if isinstance(node, ast.Name):
        return Term(node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"'{ast.unparse(node)}' is no method.")
    name = node.func.id
    if node.args:
        given = ast.unparse(node.args[0])
        raise ValueError(
            f"Arguments of '{name}' must be named, as in {name}(name={given}). Got {given} without a name."
        )
    arguments = []
    for argument in node.keywords:
        if argument.arg is None:
            raise ValueError(f"Arguments of '{name}' must be named. Got **.")
        arguments.append((argument.arg, _read_value(argument.value)))
    return Term(name, tuple(arguments))


def _read_value(node: ast.expr) -> Any:
    given = ast.unparse(node)
    try:
        return ast.literal_eval(_BareWords().visit(node))
    except (ValueError, TypeError):  # TypeError: a list as a key
        raise ValueError(
            f"'{given}' is no value. A text of more than letters, digits and _ must stand in quotes."
        ) from None


class _BareWords(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(_CONSTANTS.get(node.id, node.id))


def _write(value: Any) -> str:
    """The text that is read as `value`."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, str):
        return str(value) if _is_name(value) and value not in _CONSTANTS else repr(str(value))
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_write, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_write(key)}: {_write(inner)}' for key, inner in value.items())}}}"
    raise ValueError(f"A value must be a number, text, True, False, None, or a list of these. Got {value!r}.")


def _is_name(text: str) -> bool:
    # ASCII only: Python's parser would change some other letters into their like.
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and not keyword.iskeyword(text)


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
            if found.setdefault(name, exported) is not exported:
                raise ValueError(f"{self.package} must export one object of {name}.py. It exports two.")
        return found


CATALOGUES: dict[str, Catalogue] = {
    title: Catalogue(title, f"kinfolk.{title}") for title in ("trunks", "sharing", "penalties", "balancing", "datasets")
}
"""All catalogues by title."""


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
            wanted = str(parameters[name].annotation).replace("|", "or")
            raise InputError(f"`{name}` of '{term.name}' must be {wanted}. Got {_write(value)}.")
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
        return _write(value)
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
