"""Follow one address: its engine goes on, or has been restarted, or several replicas answer in turn.

Counters never fall while a process lives. What a fall means is not certain at once; until it is, of two
accounts the one that claims less traffic counts:

1. *A fall* is taken for a restart: what was counted before stays, what the new process has counted is added.
   But if that is more than twice what the engine has ever done in the time since the last reading, no
   restart explains it, and nothing is added; nor while no rate is known. So too for a sudden rise after that.
2. *A return* is a reading just above an earlier one from which the counters had fallen, or had risen ten
   times as fast as they usually do: above it by at most a tenth of the way and half of its value. What lies
   above the earlier reading is added, as if its process had gone on meanwhile. (A rise is a return only if
   it is as fast as that or ends within a hundredth of the way: a restarted engine overtakes its predecessor
   too.)
3. A return with progress is worth two points, one without is worth one, and so is any other fall that no
   restart explains. *Four points* are certain: A, B, A, B of two replicas under load. A restarted engine
   would have to land on its predecessors' counts twice. Ten readings without a fall or a return clear them.
4. Where processes publish when they began to count (`process_start_time_seconds`, `*_created`), a beginning
   earlier than that of the last reading is certain at once: a restart begins later.

Replicas are an error at every reading until ten in a row are of one line (after a rolling update, say). A
series that is gone, without a restart, is an error. What cannot be seen, unless its beginning is published:
a restart after which every counter has overtaken its old value; and a rise to another replica, before its
return.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from concur.live.capacity import Capacity
from concur.live.engines import Key, Page
from concur.live.errors import ReplicasError, ScrapeError
from concur.live.metric_names import MetricNames
from concur.signals import COUNTERS, MORE_COUNTERS

_TRAFFIC: Final = ("prompt_tokens", "generation_tokens")
# The numbers of the rules above; ours.
_PLAUSIBLE: Final = 2.0  # times the highest rate so far
_JUMP: Final = 10.0  # times the median rate
_NEAR_WAY: Final = 0.1
_NEAR_LINE: Final = 0.5
_AT_LINE: Final = 0.01  # of the way: as good as a jump
_CERTAIN: Final = 4  # points
_STEADY_READINGS: Final = 10
_NUM_LINES: Final = 8  # remembered
_NUM_RATES: Final = 30

Counters = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class _Point:
    """A process at one reading. `num_resets`: the restarts presumed before it."""

    time_s: float
    counters: Counters
    births: Mapping[str, float]
    capacities: Mapping[str, Capacity]
    published: frozenset[Key]
    num_resets: int

    @property
    def traffic(self) -> float:
        """Tokens counted: prompts' and generated."""
        return sum(value for (_, field), value in self.counters.items() if field in _TRAFFIC)

    @property
    def pool_tokens(self) -> int:
        """The tokens that all pools of the address hold."""
        return sum(capacity.tokens for capacity in self.capacities.values())

    def goes_on_in(self, now: "_Point") -> bool:
        """Whether `now` can be a later reading of the same process."""
        has_grown = all(now.counters.get(key, 0.0) >= value for key, value in self.counters.items())
        return has_grown and _agree(self.births, now.births) and _agree(self.capacities, now.capacities)

    def is_returned_to(self, last: "_Point", now: "_Point") -> bool:
        """Whether `now` comes back from `last` to this process (rule 2)."""
        if not self.goes_on_in(now):
            return False
        ahead, way = now.traffic - self.traffic, abs(now.traffic - last.traffic)
        is_near = ahead <= min(_NEAR_WAY * way, _NEAR_LINE * self.traffic)
        return is_near or not _agree(self.capacities, last.capacities)


class Lineage:
    """Follow the counters of one address: `follow` with every reading; `counts` is what they amount to.

    `num_resets` is how many restarts were presumed; `warnings` are distinct lines, in order.
    """

    def __init__(self, names: MetricNames) -> None:
        self.names = names
        self.num_resets = 0
        self.warnings: dict[str, None] = {}
        self.counts = dict.fromkeys((*COUNTERS, *MORE_COUNTERS), 0.0)
        self._last: _Point | None = None
        self._left: list[_Point] = []  # from which the counters fell, or which a return left
        self._jumped: list[_Point] = []  # from which they have risen suspiciously fast, since the last fall
        self._rates: list[float] = []  # tokens per s, since the last fall
        self._peak: float | None = None  # tokens per s
        self._points = 0
        self._num_resets_before = 0  # the first of these points
        self._num_steady = 0
        self._alternates = False

    def follow(self, page: Page, *, time_s: float) -> None:
        """Take in a reading.

        Raises
        ------
        ReplicasError
            If several replicas answer in turn.
        ScrapeError
            If a series is gone that was there before; the lineage is then as it was.
        """
        now = _Point(time_s, page.counters, page.births, page.capacities, page.published, self.num_resets)
        gained = now.counters if self._last is None else self._step(self._last, now)
        self._last = now
        if self._alternates:
            raise ReplicasError(
                "several replicas answer in turn at one address: name each replica's own address; several "
                "addresses are one fleet"
            )
        for (_, field), value in gained.items():
            self.counts[field] += value

    def _step(self, last: _Point, now: _Point) -> Counters:
        lost = last.published - now.published
        has_fallen = self._has_fallen(last, now, {(key.engine, key.name) for key in lost})
        if lost and not has_fallen:
            key = min(lost)
            raise ScrapeError(
                f"{key.name}{key.labels} is not published any more: has part of the server died?"
            )
        for engine in sorted(now.capacities.keys() - last.capacities.keys()):
            self._warn(f"{self.names.engine_label} {engine} has appeared")
        if last.pool_tokens != now.pool_tokens:
            self._warn(f"the pool changed from {last.pool_tokens} to {now.pool_tokens} tokens")
        return self._fallen(last, now) if has_fallen else self._risen(last, now)

    def _has_fallen(self, last: _Point, now: _Point, lost: set[tuple[str, str]]) -> bool:
        """Whether `now` is of another process than `last`; that a series is lost is no sign of it."""
        if not (_agree(last.births, now.births) and _agree(last.capacities, now.capacities)):
            return True
        if last.counters and not now.counters:
            return True  # a server that has just begun publishes none
        return any(
            now.counters[engine, field] < value
            for (engine, field), value in last.counters.items()
            if (engine, field) in now.counters and (engine, self.names.series[field].name) not in lost
        )

    def _fallen(self, last: _Point, now: _Point) -> Counters:
        """Return what is counted over a fall: rules 1, 2 and 4."""
        line = next((each for each in [*self._left, *self._jumped] if each.is_returned_to(last, now)), None)
        self._leave(last, for_line=line)
        self._jumped = []
        self.num_resets += 1
        if any(now.births[key] < last.births[key] for key in now.births.keys() & last.births.keys()):
            self._suspect(_CERTAIN, before=last)
        can_have_restarted = self._can_have_counted(now.traffic, now.time_s - last.time_s)
        if line is None and not can_have_restarted:
            self._warn(
                "the counters fell back, to more than a restarted engine is known to count between two "
                "readings, which is left out: did it restart, or do several replicas answer in turn?"
            )
        if not can_have_restarted:
            self._suspect(1 if line is None else _points_of(line, now), before=line or last)
        if line is not None:
            return _difference(now.counters, line.counters)
        if not can_have_restarted:
            return {}
        since = {key: value for key, value in last.counters.items() if value <= now.counters.get(key, 0.0)}
        return _difference(now.counters, since)

    def _can_have_counted(self, traffic: float, elapsed_s: float) -> bool:
        """Whether a restarted engine can have counted that since the last reading (rule 1)."""
        return traffic == 0 or (self._peak is not None and traffic <= _PLAUSIBLE * self._peak * elapsed_s)

    def _risen(self, last: _Point, now: _Point) -> Counters:
        """Return what is counted over a rise, which may be a return too."""
        elapsed_s, step = now.time_s - last.time_s, now.traffic - last.traffic
        is_jump = not self._rates or step > _JUMP * median(self._rates) * elapsed_s
        passed = [line for line in self._left if line.goes_on_in(now) and not line.goes_on_in(last)]
        line = max(passed, key=lambda line: line.traffic, default=None)
        if line is not None and (is_jump or now.traffic - line.traffic <= _AT_LINE * step):
            points = _points_of(line, now) if line.is_returned_to(last, now) else 0
            self._leave(last, for_line=line)
            self._suspect(points, before=line)
            return _difference(now.counters, line.counters)
        self._left = [line for line in self._left if line not in passed]
        self._note_rate(last, step, elapsed_s, is_jump=is_jump)
        self._num_steady += 1
        if self._num_steady >= _STEADY_READINGS:
            self._points, self._alternates = 0, False
        if self._points and is_jump and not self._can_have_counted(step, elapsed_s):
            return {}  # after a fall that might be another replica's, this might be a third one's
        return _difference(now.counters, last.counters)

    def _note_rate(self, last: _Point, step: float, elapsed_s: float, *, is_jump: bool) -> None:
        if is_jump:
            self._jumped = [*self._jumped, last][-_NUM_LINES:]
        if elapsed_s <= 0:
            return
        if not is_jump or (not self._rates and step <= last.traffic):  # more than double: another replica's?
            self._peak = max(self._peak or 0.0, step / elapsed_s)
        self._rates = [*self._rates, step / elapsed_s][-_NUM_RATES:]

    def _leave(self, last: _Point, *, for_line: _Point | None) -> None:
        self._left = [*(line for line in self._left if line is not for_line), last][-_NUM_LINES:]
        self._rates, self._num_steady = [], 0

    def _suspect(self, points: int, *, before: _Point) -> None:
        if not self._points:
            self._num_resets_before = before.num_resets
        self._points += points
        if self._points >= _CERTAIN:
            self._alternates = True
            self.num_resets = min(self.num_resets, self._num_resets_before)  # those were none

    def _warn(self, text: str) -> None:
        self.warnings[text] = None


def _points_of(line: _Point, now: _Point) -> int:
    return 2 if now.traffic > line.traffic else 1


def _agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def _difference(now: Counters, then: Counters) -> Counters:
    return {key: value - then.get(key, 0.0) for key, value in now.items()}
