"""A gate in front of running engines, in one line: metrics reader, law, control loop and gate as one object.

::

    async with engine_gate(["http://10.0.0.1:8000", "http://10.0.0.2:8000"], "hybrid") as gate:
        async with gate.agent("a-17") as agent:
            ...
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from concur.controllers import make_controller, make_gate
from concur.live.controlling import ControlledGate
from concur.live.scrape import MetricsScraper
from concur.signals import Snapshot

_log = logging.getLogger(__name__)


@asynccontextmanager
async def engine_gate(
    urls: str | Sequence[str],
    law: str,
    *,
    wrappers: tuple[str, ...] = (),
    gate_options: dict[str, Any] | None = None,
    **parameters: Any,
) -> AsyncIterator[ControlledGate]:
    """Control the agents of a block by a law of the catalog, on the metrics of the engines at `urls`.

    `parameters` are the law's own, `gate_options` go to the gate (`orders`, `max_wait_s`, `lease_s`, ...).
    What is odd about the metrics is logged as a warning, once.

    Raises
    ------
    ParameterError
        If the law or a parameter is unknown or out of bounds.
    ScrapeError
        If the engines' metrics cannot be read at the start.
    ControlError
        At the end of the block, if the loop has failed meanwhile.
    """
    controller = make_controller(law, wrappers=wrappers, **parameters)
    gate = make_gate(law, controller.window, **(gate_options or {}))
    async with aiohttp.ClientSession() as session:
        scraper = MetricsScraper(session, urls, clock=asyncio.get_running_loop().time)
        read = _Telling(scraper)
        await scraper.start()
        read.tell()
        async with ControlledGate(controller, gate, read) as controlled:
            yield controlled


class _Telling:
    """Read an engine and log what is odd about its metrics, each line once."""

    def __init__(self, scraper: MetricsScraper) -> None:
        self._scraper = scraper
        self._num_told = 0

    async def __call__(self) -> Snapshot:
        try:
            return await self._scraper.read()
        finally:
            self.tell()

    def tell(self) -> None:
        warnings = self._scraper.warnings
        for warning in warnings[self._num_told :]:
            _log.warning("%s", warning)
        self._num_told = len(warnings)
