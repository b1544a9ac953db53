"""What a method's constructor takes: the names, and whether given values fit."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kinfolk.exceptions import InputError, unknown
from kinfolk.terms import Term, write


def parameters(method: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters that have a name, in order."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(method).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind not in variable}


def check(method: Callable[..., Any], term: Term) -> None:
    """Raise InputError for an argument that is unknown, missing or of a wrong type."""
    known = parameters(method)
    types_of = _types(method)
    for name, value in term.arguments:
        if name not in known:
            if not known:
                raise InputError(f"'{term.name}' takes no arguments. Got '{name}'.")
            raise unknown(f"argument of '{term.name}'", name, known)
        if not _fits(value, types_of.get(name, Any)):
            wanted = str(known[name].annotation).replace("|", "or").replace("bool", "True or False")
            several = f" A list is written {name}=[{write(value)}]." if _fits([value], types_of.get(name, Any)) else ""
            raise InputError(f"`{name}` of '{term.name}' must be {wanted}. Got {write(value)}.{several}")
    given = dict(term.arguments)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise InputError(f"'{term.name}' needs the argument `{name}`, as in {term.name}({name}=...).")


def is_text(method: Callable[..., Any], name: str) -> bool:
    """Whether an argument is a text, or None: then whatever a user writes is one, such as a path.

    >>> def study(folder: str | None = None, epochs: int = 5): ...
    >>> [is_text(study, name) for name in parameters(study)]
    [True, False]
    """
    wanted = _types(method).get(name, Any)
    return wanted is str or wanted == str | None


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
