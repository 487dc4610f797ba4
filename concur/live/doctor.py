"""Watch engines for a while, only reading, and say of each one what phase it is in and what would help.

The judgement is in `concur.live.diagnosis`; here are the watching and the words.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import aiohttp

from concur.live.diagnosis import Diagnosis, Phase, Reading, diagnose, reading_of
from concur.live.errors import ScrapeError
from concur.live.scrape import MetricsScraper

_UNNAMED: Final = "the engine"


class Watch:
    """Readings of every engine behind some addresses; `warnings` are what was odd about the pages.

    Life: `run` once, and `found` at any time, also when `run` was cut short.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.warnings: tuple[str, ...] = ()
        self.num_failed = 0
        self._urls = urls
        self._readings: dict[str, list[Reading]] = {}

    async def run(self, seconds: float, every_s: float) -> None:
        """Read now and every `every_s`, for `seconds`. A reading that fails later is left out and counted.

        Raises
        ------
        ParameterError
            If there is no address, or one twice.
        ScrapeError
            If the engines cannot be read at the start.
        """
        clock = asyncio.get_running_loop().time
        async with aiohttp.ClientSession() as session:
            scraper = MetricsScraper(session, self._urls, clock=clock)
            began_s = (await scraper.start()).time_s
            self._take(scraper, began_s)
            while clock() - began_s < seconds:
                await asyncio.sleep(every_s)
                try:
                    self._take(scraper, (await scraper.read()).time_s)
                except ScrapeError:
                    self.num_failed += 1

    def found(self) -> dict[str, Diagnosis]:
        """Return the diagnosis of every engine that was read at least twice, by its name."""
        several = {name: own for name, own in self._readings.items() if len(own) >= 2}
        return {name: diagnose(own) for name, own in several.items()}

    def _take(self, scraper: MetricsScraper, time_s: float) -> None:
        for name, values in scraper.reader.engines.items():
            reading = reading_of(values, scraper.reader.pools[name], time_s)
            self._readings.setdefault(name or _UNNAMED, []).append(reading)
        self.warnings = scraper.warnings


def sentences(found: Mapping[str, Diagnosis]) -> list[str]:
    """Return what is to be said of each engine that is not well, or that all are, and of the fleet."""
    ill = {name: each for name, each in found.items() if each.phase in _ADVICE}
    lines = [f"{_called(name, found)}: {_ADVICE[each.phase](each)}" for name, each in ill.items()]
    thrashing = [name for name, each in found.items() if each.phase is Phase.THRASHING]
    if 0 < len(thrashing) < len(found):
        lines.append(
            f"{len(thrashing)} of {len(found)} engines thrash, the others do not: agents are unevenly "
            "spread; move some of them, and hold agents back per engine, not over the mean of all."
        )
    return lines or [_WELL[_most_of([each.phase for each in found.values()])]]


def _thrashing(found: Diagnosis) -> str:
    return (
        f"thrashing. It finds {percent(found.hit_rate)} of prompts in its cache, "
        f"{percent(found.hit_rate_before)} before: {found.lost_tokens_per_s:,.0f} tokens a second are "
        f"computed again, "
        f"{percent(found.lost_frac)} of all that it computes. Hold agents back before their next call: "
        f"{_fitting(found)}"
    )


def _little_reuse(found: Diagnosis) -> str:
    return (
        f"little reuse. It finds {percent(found.hit_rate)} of prompts in its cache, "
        f"{percent(found.hit_rate_before)} before. If these are agents that call again with what they have, "
        f"it has thrashed all along; then {_fitting(found)} If every prompt is a new one, no control helps."
    )


def _full(found: Diagnosis) -> str:
    preempted = f", {found.num_preemptions:,.0f} preemptions" if found.num_preemptions else ""
    return (
        f"full. Running requests reference {percent(found.kv_cache_usage_frac)} of the pool{preempted}, "
        f"and hits hold ({percent(found.hit_rate)}). More agents at once will thrash: {_fitting(found)}"
    )


def _fitting(found: Diagnosis) -> str:
    if found.context_tokens is None or found.num_fitting is None:
        return "how many fit cannot be told, for none was running."
    return (
        f"requests hold {found.context_tokens:,.0f} tokens in the mean, so about "
        f"{found.num_fitting:,.0f} agents of that length fit its {found.pool_tokens:,} tokens, "
        "those in a tool among them."
    )


_ADVICE: Final[Mapping[Phase, Callable[[Diagnosis], str]]] = {
    Phase.THRASHING: _thrashing,
    Phase.LITTLE_REUSE: _little_reuse,
    Phase.FULL: _full,
}
_WELL: Final = {
    Phase.IDLE: "Nothing runs; watch while agents do.",
    Phase.WARM_UP: "Warm-up: less was computed than the pools hold, so nothing was evicted yet.",
    Phase.HEALTHY: "Histories are found again; there is nothing to mend.",
}


def _called(name: str, found: Mapping[str, Diagnosis]) -> str:
    return "The engine" if len(found) == 1 else f"Engine {name}"


def _most_of(phases: Sequence[Phase]) -> Phase:
    busy: list[Phase] = [phase for phase in phases if phase is not Phase.IDLE]
    return max(busy, key=busy.count, default=Phase.IDLE)


def percent(value: float | None, digits: int = 0) -> str:
    """Format a share for people; `-` where it is not known."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"
