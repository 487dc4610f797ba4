"""Progress and remarks on stderr, one look for every verb."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_SAY_EVERY_S: Final = 20.0
_MOST_DETAIL: Final = 100

_MANY_AGENTS: Final = 50_000

OnProgress = Callable[[str, int, int], None]
"""Called with (what runs, how many are done, how many in all)."""
OnWait = Callable[[float, str], None]
"""Called every now and then with (seconds waited, what is heard meanwhile)."""


def say(remark: str) -> None:
    """Print a remark on stderr."""
    print(remark, file=sys.stderr)


def warn(warnings: Iterable[str]) -> None:
    """Print warnings on stderr as one line; nothing if there are none."""
    if text := "; ".join(warnings):
        say(f"concur: warning: {text}")


def say_if_many(num_drawn_agents: int) -> None:
    """Say what takes minutes before anything is shown: drawing very many agents."""
    if num_drawn_agents >= _MANY_AGENTS:
        say(f"drawing {num_drawn_agents:,} agents, which takes minutes")


@contextmanager
def counting(what: str, total: int) -> Iterator["Advance"]:
    """Show one bar while the block runs, and take it away."""
    with _bars(transient=True) as progress:
        yield Advance(progress, progress.add_task(what, total=total))


@contextmanager
def tallying(what: str) -> Iterator[Callable[[], None]]:
    """Count up while the block runs, where nobody knows how many there will be."""
    with _bars(transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda: progress.advance(task)


@contextmanager
def one_bar_each() -> Iterator[OnProgress]:
    """Show a bar for each label that is reported, and leave them; in a log file, a line where each begins."""
    with _bars(transient=False) as progress:
        is_terminal = progress.console.is_terminal
        tasks: dict[str, TaskID] = {}

        def on_progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
                if not is_terminal:
                    say(f"{label} ...")
            progress.update(tasks[label], completed=done, total=total)

        yield on_progress


@contextmanager
def waiting(what: str) -> Iterator[OnWait]:
    """Say what is waited for, how long already, and what was heard last; in a log file, now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        say(f"{what} ...")
        yield _Sayer(what)
        return
    with console.status(what) as status:
        yield lambda waited_s, heard: status.update(Text(_waited(what, waited_s, heard)))


class _Sayer:
    """Print a line every `_SAY_EVERY_S` seconds of waiting."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next_s = _SAY_EVERY_S

    def __call__(self, waited_s: float, heard: str) -> None:
        if waited_s >= self._next_s:
            say(_waited(self._what, waited_s, heard))
            self._next_s += _SAY_EVERY_S


def _waited(what: str, waited_s: float, heard: str) -> str:
    return f"{what}: {waited_s:.0f} s" + (f"; {heard[:_MOST_DETAIL]}" if heard else "")


class Advance:
    """Move one bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self) -> None:
        """Move it by one."""
        self._progress.advance(self._task)

    def say(self, remark: str) -> None:
        """Print a remark on stderr, above the bar."""
        self._progress.console.print(remark, markup=False, highlight=False, soft_wrap=True)

    def to(self, completed: int) -> None:
        """Set the bar to `completed`."""
        self._progress.update(self._task, completed=completed)


def _bars(*, transient: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=transient and not console.is_terminal,  # where it would leave an empty line
    )
