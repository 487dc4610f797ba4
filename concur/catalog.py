"""What a scenario calls by name: the project's own things, and those that installed packages add.

A package adds one by an entry point of the catalog's group, in its `pyproject.toml`:

    [project.entry-points."concur.controllers"]
    my_law = "my_package:MY_LAW"
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar, cast

from concur.errors import ParameterError

Entry = TypeVar("Entry")


class Catalog(Mapping[str, Entry]):
    """Entries by name: `own` ones first, then those of the entry-point group `group` by name.

    Names cost no import: an entry of another package is loaded when it is asked for, and has to pass `fits`.
    No package takes a name that is taken: whoever has installed two of one name is told of both.
    """

    def __init__(
        self, group: str, own: dict[str, Entry], *, what: str, fits: Callable[[object], bool], holds: str
    ) -> None:
        self.group = group
        self.own = own
        self._what = what
        self._fits = fits
        self._holds = holds

    def __getitem__(self, name: str) -> Entry:
        """Return the entry; whatever is wrong with the name, or with the package behind it, is one line."""
        points = self._points.get(name, ())
        if name in self.own and not points:
            return self.own[name]
        if not points:
            raise ParameterError(f"{self._what} = {name!r} but must be one of {', '.join(self)}")
        if name in self.own or len(points) > 1:
            owners = ["concur"] * (name in self.own) + [" ".join(_package(point)) for point in points]
            raise ParameterError(
                f"{self._what} = {name!r} is ambiguous: {' and '.join(owners)} have one; "
                "uninstall all but one, or rename an entry point"
            )
        return self._loaded(points[0])

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._points

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from sorted(self._points.keys() - self.own.keys())

    def __len__(self) -> int:
        return len(self.own.keys() | self._points.keys())

    def package(self, name: str) -> tuple[str, str] | None:
        """Return name and version of the package that an entry is from; `None` for an own one."""
        points = self._points.get(name, ())
        return _package(points[0]) if points and name not in self.own else None

    @cached_property
    def _points(self) -> dict[str, tuple[EntryPoint, ...]]:
        """Entry points by name; what is found twice on the path counts once."""
        points: dict[str, dict[tuple[str, ...], EntryPoint]] = {}
        for point in entry_points(group=self.group):
            points.setdefault(point.name, {})[*_package(point), point.value] = point
        return {name: tuple(found.values()) for name, found in points.items()}

    def _loaded(self, point: EntryPoint) -> Entry:
        whose = f"{self._what} = {point.name!r} of {' '.join(_package(point))} ({point.value})"
        try:
            entry = point.load()
        except Exception as error:  # whatever the code of somebody else raises
            raise ParameterError(
                f"{whose} cannot be loaded: {type(error).__name__}: {error}; mend or uninstall the package"
            ) from error
        if not self._fits(entry):
            raise ParameterError(f"{whose} is {entry!r} but must be {self._holds}")
        return cast(Entry, entry)


def _package(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("a package without a name", "?")
