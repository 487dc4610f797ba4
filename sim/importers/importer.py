"""What an importer is, and what it says of all that a recording does not tell or tells twice."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from concur.sim.traces.format import TraceAgent

CountTokens = Callable[[str], int]
"""A tokenizer, as far as an importer needs one: the number of tokens of a text."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file, by which its format is told: its name and its first JSON values.

    `values` holds the first lines of JSONL, or the one value of a JSON file, cut short: of a JSON list its
    first elements, of an object all keys, with long lists below them cut to their first elements.
    """

    path: Path
    values: tuple[Any, ...]

    def first(self, *keys: str) -> Mapping[str, Any] | None:
        """Return the first object among the values that has all these keys."""
        found = (value for value in self.values if isinstance(value, dict) and value.keys() >= set(keys))
        return next(found, None)


@dataclass(slots=True)
class Notes:
    """What there is to say of an import: counts by line of text, each with the first place it was seen at.

    `guessed`: numbers that the recording does not have, and what stands for them. `left_out`: lines and calls
    that are not in the trace, and why.
    """

    guessed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first_places: dict[str, str] = field(default_factory=dict)

    def guess(self, what: str, where: str, number: int = 1) -> None:
        """Note numbers that are guesses."""
        self.guessed[what] += number
        self.first_places.setdefault(what, where)

    def leave_out(self, what: str, where: str, number: int = 1) -> None:
        """Note what is left out."""
        self.left_out[what] += number
        self.first_places.setdefault(what, where)

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind of note."""
        for kind, counts in (("a guess", self.guessed), ("left out", self.left_out)):
            for what, number in counts.items():
                yield f"{kind}: {what}: {number:,} (first: {self.first_places[what]})"


@runtime_checkable
class Importer(Protocol):
    """A format: how to know it, and how to read it.

    The `arrival_s` of what it yields is on the clock of the recording; the import counts from the first one.
    """

    @property
    def name(self) -> str:
        """As in `--from NAME`."""
        ...

    @property
    def title(self) -> str:
        """What it is and where its tool writes it, in one line."""
        ...

    @property
    def needs_tokenizer(self) -> bool:
        """Whether the recording has text instead of counts, so that `--tokenizer` must be given."""
        ...

    def recognises(self, head: Head) -> bool:
        """Tell whether a file that begins so is of this format."""
        ...

    def read(self, path: Path, notes: Notes, count_tokens: CountTokens | None) -> Iterator[TraceAgent]:
        """Yield the agents of a file, in a memory that does not grow with the text in it."""
        ...


@runtime_checkable
class JointImporter(Importer, Protocol):
    """A format whose files belong together: parts of one recording, or agents that started each other."""

    def read_all(
        self, paths: Sequence[Path], notes: Notes, count_tokens: CountTokens | None
    ) -> Iterator[TraceAgent]:
        """Yield the agents of all files."""
        ...


@dataclass(frozen=True, slots=True)
class CountsImporter:
    """An importer of a format that has counts, made of two functions; a `JointImporter`."""

    name: str
    title: str
    told_by: Callable[[Head], bool]
    agents: Callable[[Sequence[Path], Notes], Iterator[TraceAgent]]
    needs_tokenizer: bool = False

    def recognises(self, head: Head) -> bool:
        """Tell whether a file that begins so is of this format."""
        return self.told_by(head)

    def read(self, path: Path, notes: Notes, count_tokens: CountTokens | None = None) -> Iterator[TraceAgent]:
        """Yield the agents of a file."""
        return self.agents([path], notes)

    def read_all(
        self, paths: Sequence[Path], notes: Notes, count_tokens: CountTokens | None = None
    ) -> Iterator[TraceAgent]:
        """Yield the agents of all files."""
        return self.agents(paths, notes)
