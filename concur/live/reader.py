"""From the `/metrics` pages of a fleet of engines to a `Snapshot`: summed, weighted, made monotone.

- Counters and request counts are summed over the engines (data-parallel ranks) of every server; KV usage is
  their mean, weighted by the tokens that their pools hold. `MetricsReader.engines` keeps each engine's own
  numbers apart, because a mean hides one that collapses.
- The pool is what the engines say that it holds (`concur.live.capacity`), summed.
- A snapshot's counters never decrease: restarts are made up for; replicas that answer in turn at one address
  are an error (`concur.live.lineage`).
- A value that might be of another engine is an error, never a number (`concur.live.engines`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from concur.live.capacity import Capacity
from concur.live.engines import Page, Values, read_page
from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.lineage import Lineage
from concur.live.metric_names import RESIDENT, MetricNames
from concur.live.pages import find_engine, read_samples
from concur.signals import COUNTERS, GAUGES, MORE_COUNTERS, Snapshot

_REQUESTS: Final = GAUGES[:2]
_NO_ADDRESS: Final = ""


def detect_names(text: str) -> MetricNames:
    """Return the table of names of the engine that published `text`, having found every one of them in it.

    Raises
    ------
    MetricNamesError
        If no known engine published it, or one that lacks a name, or several that cannot be told apart.
    ScrapeError
        If the text is malformed, or a value is none.
    """
    samples = read_samples(text)
    names = find_engine(samples, text)
    read_page(samples, names)
    return names


@contextmanager
def named(url: str) -> Iterator[None]:
    """Put the address before the message of a `ScrapeError`."""
    try:
        yield
    except ScrapeError as error:
        if not url:
            raise
        raise type(error)(f"{url}: {error}") from None


class MetricsReader:
    """Turn successive `/metrics` pages into snapshots; remembers counters, nothing else.

    `engines` holds the last reading per engine: under its label, or, where there are several addresses, under
    address and label; `pools` the tokens that each one's pool holds.
    """

    def __init__(self, names: MetricNames) -> None:
        self.names = names
        self.engines: Mapping[str, Values] = {}
        self.pools: Mapping[str, int] = {}
        self._lineages: dict[str, Lineage] = {}
        self._warnings: dict[str, None] = {}

    @property
    def num_resets(self) -> int:
        """How often an engine was seen to have restarted."""
        return sum(lineage.num_resets for lineage in self._lineages.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the pages, although they could be read: distinct lines, in order."""
        return tuple(self._warnings)

    def read(self, text: str, *, time_s: float) -> Snapshot:
        """Return the snapshot that the page of one server amounts to; see `read_all`."""
        return self.read_all({_NO_ADDRESS: text}, time_s=time_s)

    def read_all(self, texts: Mapping[str, str], *, time_s: float) -> Snapshot:
        """Return the snapshot that the pages of all servers, by address, amount to, taken at `time_s`.

        Raises
        ------
        MetricNamesError
            If a name is missing, or it is open which engine a value is of; the reader is then as it was.
        ReplicasError
            If several replicas answer in turn at one address.
        ScrapeError
            If a text is malformed or a value is none (the reader is then as it was), or a series is gone.
        """
        pages = {url: self._page(url, text) for url, text in texts.items()}
        engines = _by_name({url: page.engines for url, page in pages.items()})
        capacities = _by_name({url: page.capacities for url, page in pages.items()})
        block_size = _check_fleet(list(pages.values()), capacities)
        for url, page in pages.items():
            self._follow(url, page, time_s)
        self._warnings |= dict.fromkeys(_fleet_warnings(pages))
        self.engines = engines
        self.pools = {name: capacity.tokens for name, capacity in capacities.items()}
        totals = {name: sum(values[name] for values in engines.values()) for name in _REQUESTS}
        published = [name for name in MORE_COUNTERS if all(name in each for each in engines.values())]
        for name in (*COUNTERS, *published):
            totals[name] = sum(each.counts[name] for each in self._lineages.values())
        whole: dict[str, Any] = {name: round(value) for name, value in totals.items()}
        return Snapshot(
            time_s=time_s,
            kv_cache_usage_frac=_usage(engines, capacities),
            kv_cache_resident_frac=_resident(engines),
            **whole,
            num_gpu_blocks=sum(capacity.tokens // block_size for capacity in capacities.values()),
            block_size=block_size,
            kv_cache_size_tokens=_own_tokens(list(capacities.values())),
        )

    def _page(self, url: str, text: str) -> Page:
        with named(url):
            return read_page(read_samples(text), self.names)

    def _follow(self, url: str, page: Page, time_s: float) -> None:
        lineage = self._lineages.setdefault(url, Lineage(self.names))
        with named(url):
            try:
                lineage.follow(page, time_s=time_s)
            finally:
                for text in [*page.warnings, *lineage.warnings]:
                    self._warnings[f"{url}: {text}" if url else text] = None


def _by_name(by_url: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if len(by_url) == 1:
        return dict(next(iter(by_url.values())))
    return {
        f"{url} {engine}".rstrip(): value for url, each in by_url.items() for engine, value in each.items()
    }


def _check_fleet(pages: Sequence[Page], capacities: Mapping[str, Capacity]) -> int:
    """Return the one block size of engines that can be pooled."""
    kinds = sorted({kind for page in pages for kind in page.engine_types})
    if len(kinds) > 1:
        raise MetricNamesError(
            f"the addresses are of {' and '.join(kinds)} engines, which hold the same tokens twice: name "
            "those of one kind"
        )
    sizes = sorted({capacity.block_size for capacity in capacities.values()})
    if len(sizes) != 1:
        raise ScrapeError(f"block_size = {sizes} differs between engines; they cannot be pooled")
    return sizes[0]


def _fleet_warnings(pages: Mapping[str, Page]) -> Iterator[str]:
    models = sorted({model for page in pages.values() for model in page.models})
    if len(models) > 1:
        yield f"the addresses serve several models ({', '.join(models)}); they are read as one fleet"
    seen: dict[frozenset[tuple[str, float]], str] = {}
    for url, page in pages.items():
        births = frozenset(page.births.items())
        if births and seen.setdefault(births, url) != url:
            yield f"{seen[births]} and {url} began to count at one instant: are they one server, read twice?"


def _usage(engines: Mapping[str, Values], capacities: Mapping[str, Capacity]) -> float:
    """Mean over the engines, by the tokens that their pools hold."""
    used = sum(values["kv_cache_usage_frac"] * capacities[name].tokens for name, values in engines.items())
    return used / sum(capacity.tokens for capacity in capacities.values())


def _resident(engines: Mapping[str, Values]) -> float | None:
    available, pool = RESIDENT
    if not all(available in values and pool in values for values in engines.values()):
        return None
    return 1.0 - sum(values[available] for values in engines.values()) / sum(
        values[pool] for values in engines.values()
    )


def _own_tokens(capacities: Sequence[Capacity]) -> int | None:
    if all(capacity.own_tokens is None for capacity in capacities):
        return None
    return sum(capacity.tokens for capacity in capacities)
