"""From an engine's `/metrics` to a `Snapshot`: Prometheus text, checked, summed, made monotone.

- A name that the engine does not publish is an error, never an empty column: `detect_names` at the start,
  and again in every reading.
- Counters and request counts are summed over the engines (data-parallel ranks) of a server; KV usage is
  their mean, weighted by blocks. `MetricsReader.engines` keeps each engine's own numbers apart, because a
  mean hides one that collapses.
- A counter that goes backwards has been reset by a restart; what was counted before is added, so a snapshot's
  counters never decrease. A restart after which a counter has already overtaken its old value cannot be seen.
- Text that is cut off or malformed, and numbers that are none, are a `ScrapeError`: no snapshot at all.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.metric_names import CAPACITY, COUNTERS, ENGINES, GAUGES, RESIDENT, MetricNames
from concur.signals import Snapshot

_SUMMED: Final = (*GAUGES[:2], CAPACITY[0], *RESIDENT)

Values = Mapping[str, float]
"""The fields of one engine's reading, under a `Snapshot`'s names."""


def detect_names(text: str) -> MetricNames:
    """Return the table of names of the engine that published `text`, having found every one of them in it.

    Raises
    ------
    MetricNamesError
        If no known engine published it, or one that lacks a name: which, of which releases, the remedy.
    ScrapeError
        If the text is malformed.
    """
    published = {sample.name for sample in _samples(text)}
    for names in ENGINES:
        if any(name.startswith(f"{names.engine}:") for name in published):
            _check_names(names, published)
            return names
    known = ", ".join(f"{names.engine}:" for names in ENGINES)
    raise MetricNamesError(
        f"the server publishes {len(published)} metrics but none that begins with {known}; name the engine's "
        "own address (for SGLang, started with --enable-metrics)"
    )


class MetricsReader:
    """Turn successive `/metrics` texts of one server into snapshots; remembers counters, nothing else.

    `engines` holds the last reading per engine, `num_resets` how often a counter went backwards.
    """

    def __init__(self, names: MetricNames) -> None:
        self.names = names
        self.engines: Mapping[str, Values] = {}
        self.num_resets = 0
        self._counters: dict[tuple[str, str], tuple[float, float]] = {}  # before the last reset, since then

    def read(self, text: str, *, time_s: float) -> Snapshot:
        """Return the snapshot that `text` amounts to, taken at `time_s`.

        Raises
        ------
        ScrapeError
            If the text is malformed, or lacks a name; the reader is then as it was.
        """
        engines = _by_engine(text, self.names)
        sizes = {values["block_size"] for values in engines.values() if "block_size" in values}
        if len(sizes) != 1:
            raise ScrapeError(f"block_size = {sorted(sizes)} differs between engines; they cannot be pooled")
        usage = _usage(engines)
        self.engines = engines  # from here on nothing can fail
        self._add(engines)
        totals = {name: _total(engines, name) for name in _SUMMED} | self._counts()
        whole: dict[str, Any] = {name: round(totals[name]) for name in (*GAUGES[:2], *COUNTERS)}
        return Snapshot(
            time_s=time_s,
            kv_cache_usage_frac=usage,
            kv_cache_resident_frac=_resident(totals),
            **whole,
            num_gpu_blocks=round(totals["num_gpu_blocks"]),
            block_size=round(sizes.pop()),
        )

    def _add(self, engines: Mapping[str, Values]) -> None:
        is_reset = False
        for engine, values in engines.items():
            for name in COUNTERS:
                if name not in values:
                    continue
                now = values[name]
                before, last = self._counters.get((engine, name), (0.0, 0.0))
                if now < last:
                    before, is_reset = before + last, True
                self._counters[engine, name] = (before, now)
        self.num_resets += is_reset

    def _counts(self) -> dict[str, float]:
        counts = dict.fromkeys(COUNTERS, 0.0)
        for (_, name), (before, last) in self._counters.items():
            counts[name] += before + last
        return counts


class MetricsScraper:
    """Read a server's `/metrics` over HTTP.

    `url` is the server's address, without the path. Readings are taken one at a time, so that a slow answer
    can never be taken for one newer than it is.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        clock: Callable[[], float],
        timeout_s: float = 5.0,
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/metrics"
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._lock = asyncio.Lock()
        self._reader: MetricsReader | None = None

    @property
    def reader(self) -> MetricsReader:
        """The reader, from `start` on."""
        assert self._reader is not None, "start() comes first"
        return self._reader

    async def start(self) -> Snapshot:
        """Find out which engine this is, check every name, and return the first snapshot.

        Raises
        ------
        MetricNamesError
            If the server does not publish what a snapshot needs.
        ScrapeError
            If it cannot be read.
        """
        text = await self._fetch()
        try:
            self._reader = MetricsReader(detect_names(text))
        except MetricNamesError as error:
            raise MetricNamesError(f"{self._url}: {error}") from None
        return self._reader.read(text, time_s=self._clock())

    async def read(self) -> Snapshot:
        """Return a snapshot, stamped when the answer was there.

        Raises
        ------
        ScrapeError
            If the server does not answer in time, or with anything but well-formed metrics.
        """
        async with self._lock:
            return self.reader.read(await self._fetch(), time_s=self._clock())

    async def _fetch(self) -> str:
        try:
            async with self._session.get(self._url, timeout=self._timeout) as response:
                body = await response.text()
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError, OSError) as error:
            raise ScrapeError(f"{self._url}: no answer ({type(error).__name__} {error})".rstrip()) from None
        if response.status != 200:
            raise ScrapeError(f"{self._url}: answered with status {response.status}")
        return body


def _samples(text: str) -> Iterator[Sample]:
    if not text.endswith("\n"):
        raise ScrapeError("the metrics are cut off: the last line has no end")
    try:
        for family in text_string_to_metric_families(text):
            yield from family.samples
    except ValueError as error:
        raise ScrapeError(f"the metrics are malformed: {error}") from None


def _check_names(names: MetricNames, published: set[str]) -> None:
    needed = [*GAUGES, *COUNTERS, *CAPACITY]
    wanted = [names.series[name] for name in needed]
    missing = sorted({series.name for series in wanted if not series.is_late} - published)
    if missing:
        raise MetricNamesError(
            f"{', '.join(missing)} not published; the names are those of {names.engine} {names.releases}: "
            f"use such a release, or {names.remedy}"
        )


def _by_engine(text: str, names: MetricNames) -> dict[str, dict[str, float]]:
    fields: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, series in names.series.items():
        fields[series.name].append((name, series.label))
    engines: defaultdict[str, dict[str, float]] = defaultdict(dict)
    published = set()
    for sample in _samples(text):
        if sample.name not in fields or not _counts(sample.labels, names.only):
            continue
        published.add(sample.name)
        values = engines[sample.labels.get(names.engine_label, "")]
        for name, label in fields[sample.name]:
            value = _number(sample, label)
            values[name] = value + (values.get(name, 0.0) if name in COUNTERS else 0.0)
    _check_names(names, published)
    return dict(engines)


def _counts(labels: Mapping[str, str], only: Mapping[str, str]) -> bool:
    return all(labels.get(label, value) == value for label, value in only.items())


def _number(sample: Sample, label: str) -> float:
    text: Any = sample.labels.get(label) if label else sample.value
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        where = f"{sample.name}{{{label}}}" if label else sample.name
        raise ScrapeError(f"{where} = {text} but must be a number, at least 0")
    return value


def _total(engines: Mapping[str, Values], name: str) -> float:
    return sum(values.get(name, 0.0) for values in engines.values())


def _usage(engines: Mapping[str, Values]) -> float:
    """Mean over the engines that publish it, by their blocks."""
    parts = [
        (values["kv_cache_usage_frac"], values.get("num_gpu_blocks", 1.0))
        for values in engines.values()
        if "kv_cache_usage_frac" in values
    ]
    highest = max(usage for usage, _ in parts)
    if highest > 1.0:
        raise ScrapeError(f"KV usage = {highest} but must be a fraction, 0 to 1: has its unit changed?")
    return sum(usage * blocks for usage, blocks in parts) / sum(blocks for _, blocks in parts)


def _resident(totals: Values) -> float | None:
    available, pool = (totals[name] for name in RESIDENT)
    return 1.0 - available / pool if pool > 0 else None
