"""Read the `/metrics` of a fleet of engines over HTTP: one address or several.

What a page says, and what is refused, is in `concur.live.reader`. A fleet is read whole or not at all: if one
address does not answer, there is no snapshot, because a sum over the others would look like a lighter load.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp

from concur.errors import require
from concur.live.errors import MetricNamesError, ScrapeError
from concur.live.metric_names import MetricNames
from concur.live.reader import MetricsReader, detect_names, named
from concur.signals import Snapshot

__all__ = ["MetricsReader", "MetricsScraper", "detect_names"]

_PATH: Final = "/metrics"


class MetricsScraper:
    """Read the engines' `/metrics` over HTTP.

    `urls` is one server's address, without the path, or those of all servers of a fleet: each replica's own,
    not that of a service in front of them. All addresses are read at the same time; readings are taken one
    after the other, so that a slow answer can never be taken for one newer than it is.

    Life: `start`, then `read` as often as wanted. `warnings` and `num_resets` say at any time what a user of
    the numbers must be told.

    Raises
    ------
    ParameterError
        If there is no address, or one twice.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: str | Sequence[str],
        *,
        clock: Callable[[], float],
        timeout_s: float = 5.0,
    ) -> None:
        self.urls = tuple(url.rstrip("/") for url in ([urls] if isinstance(urls, str) else urls))
        require(len(self.urls) > 0, "urls", urls, "at least one address")
        require(len(set(self.urls)) == len(self.urls), "urls", urls, "distinct", "name every server once")
        self._session = session
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._lock = asyncio.Lock()
        self._reader: MetricsReader | None = None

    @property
    def reader(self) -> MetricsReader:
        """The reader, from `start` on."""
        assert self._reader is not None, "start() comes first"
        return self._reader

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was odd about the metrics, although they could be read: distinct lines, in order."""
        return () if self._reader is None else self._reader.warnings

    @property
    def num_resets(self) -> int:
        """How often an engine was seen to have restarted."""
        return 0 if self._reader is None else self._reader.num_resets

    async def start(self) -> Snapshot:
        """Find out which engine this is, check every name, and return the first snapshot.

        Raises
        ------
        MetricNamesError
            If a server does not publish what a snapshot needs, or not so that engines can be told apart.
        ScrapeError
            If one cannot be read.
        """
        async with self._lock:
            texts = await self._fetch_all()
            found: dict[str, MetricNames] = {}
            for url, text in texts.items():
                with named(url):
                    found[url] = detect_names(text)
            kinds = sorted({names.engine for names in found.values()})
            if len(kinds) > 1:
                raise MetricNamesError(
                    f"the addresses are of {' and '.join(kinds)}; name engines of one kind"
                )
            reader = MetricsReader(found[self.urls[0]])
            snapshot = reader.read_all(texts, time_s=self._clock())
            self._reader = reader
            return snapshot

    async def read(self) -> Snapshot:
        """Return a snapshot, stamped when all answers were there.

        Raises
        ------
        ScrapeError
            If a server does not answer in time, or with anything but well-formed metrics.
        """
        async with self._lock:
            return self.reader.read_all(await self._fetch_all(), time_s=self._clock())

    async def _fetch_all(self) -> dict[str, str]:
        bodies = await asyncio.gather(*map(self._fetch, self.urls), return_exceptions=True)
        texts: dict[str, str] = {}
        for url, body in zip(self.urls, bodies, strict=True):
            if isinstance(body, BaseException):
                raise body
            texts[url] = body
        return texts

    async def _fetch(self, url: str) -> str:
        try:
            async with self._session.get(url + _PATH, timeout=self._timeout) as response:
                body = await response.text()
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise ScrapeError(f"{url}{_PATH}: no answer ({type(error).__name__} {error})".rstrip()) from None
        if response.status != 200:
            raise ScrapeError(f"{url}{_PATH}: answered with status {response.status}")
        return body
