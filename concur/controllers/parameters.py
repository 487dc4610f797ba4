"""Whether a given value fits a parameter, by the parameter's annotation."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from concur.errors import ParameterError, require

_PLAIN: Final = (bool, int, float, str, NoneType)
_LARGEST: Final = sys.float_info.max
Params = TypeVar("Params")


class _MisfitError(Exception):
    """The value is not of the annotation."""


def fitted_params(params: type[Params], given: Mapping[str, Any], *, of: str, section: str) -> Params:
    """Return the parameters that a dataclass describes, defaults filled in.

    `of` is whose they are, `section` the one of the scenario that has them.

    Raises
    ------
    ParameterError
        If a key of `given` is unknown, a value has the wrong type or is out of bounds, or a parameter without
        default is missing.
    """
    known = {field.name: field for field in fields(params)}  # type: ignore[arg-type]
    annotations = get_type_hints(params)  # `Field.type` may be text
    fitting = {}
    for name, value in given.items():
        if name not in known:
            raise ParameterError(f"{name} is not a parameter of {of!r}; known: {', '.join(sorted(known))}")
        fitting[name] = fitted(name, value, annotations[name])
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise ParameterError(f"{of!r} needs {name}; set {section}.{name}")
    return params(**fitting)


def fitted(name: str, value: Any, annotation: Any) -> Any:
    """Return `value` as a parameter of type `annotation`; a list, as TOML and JSON have it, becomes a tuple.

    Parameters are of bool, int, float (finite; an int will do), str, a `Literal`, or tuples or unions of
    these, with `None` among a union's members.

    Raises
    ------
    ParameterError
        If the value is of another type, or the type is no parameter's.
    """
    if isinstance(value, float):
        require(_is_finite(value), name, value, "finite")
    try:
        return _fit(value, annotation)
    except _MisfitError:
        raise ParameterError(f"{name} = {value!r} but must be of type {_named(annotation)}") from None
    except NotImplementedError:
        raise ParameterError(
            f"{name} is declared as {_named(annotation)}, which no scenario can give; declare it as bool, "
            "int, float, str, a Literal, or a tuple or union of these"
        ) from None


def _fit(value: Any, annotation: Any) -> Any:
    origin, members = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN or annotation is None:
        return _fit_plain(value, annotation or NoneType)
    if origin is Literal:
        if any(type(value) is type(member) and value == member for member in members):
            return value
        raise _MisfitError
    if origin in (Union, UnionType):
        return _fit_any(value, members)
    if origin is tuple:
        return _fit_tuple(value, members)
    raise NotImplementedError


def _fit_plain(value: Any, expected: type) -> Any:
    accepted = (int, float) if expected is float else expected
    fits = isinstance(value, accepted) and isinstance(value, bool) == (expected is bool)
    if not fits or (expected is float and not _is_finite(value)):
        raise _MisfitError
    return value


def _is_finite(value: float) -> bool:
    return -_LARGEST <= value <= _LARGEST  # nan is not, nor is an int beyond every float


def _fit_any(value: Any, members: Sequence[Any]) -> Any:
    for member in members:
        try:
            return _fit(value, member)
        except _MisfitError:
            continue
    raise _MisfitError


def _fit_tuple(value: Any, members: Sequence[Any]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _MisfitError
    if len(members) == 2 and members[1] is Ellipsis:
        members = [members[0]] * len(value)
    if len(members) != len(value):
        raise _MisfitError
    return tuple(_fit(each, member) for each, member in zip(value, members, strict=True))


def _named(annotation: Any) -> str:
    return (
        annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    )
