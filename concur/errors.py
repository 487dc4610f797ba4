"""The error tree of the control layer.

ConcurError
├── ParameterError     a parameter is outside its bound, or unknown
└── GateError          the gate was told of an event that cannot follow the previous one
    └── NoEngineError  no engine of a fleet is up
"""


class ConcurError(Exception):
    """Root of every error that a user of this project can cause."""


class ParameterError(ConcurError, ValueError):
    """Report a parameter outside its bound: the value, the bound and the remedy."""


class GateError(ConcurError, RuntimeError):
    """Report an agent event out of order, e.g. a step that ends without having begun."""


class NoEngineError(GateError):
    """Report a call that can go nowhere, for no engine of the fleet is up."""


def require(holds: bool, name: str, value: object, bound: str, remedy: str = "") -> None:
    """Raise `ParameterError` unless `holds`, naming the value, the bound and the remedy."""
    if not holds:
        suffix = f"; {remedy}" if remedy else ""
        raise ParameterError(f"{name} = {value!r} but must be {bound}{suffix}")
