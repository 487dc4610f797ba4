"""Calls against counters: the hit rate of a server that tells none per call, and who else was there."""

import asyncio

import aiohttp
import pandas as pd
import pytest

from concur.sim.record.rows import RequestRow, TimelineRow
from concur.sim.record.tables import table_of
from concur.validate.live.account import account, explain_foreign
from concur.validate.live.fake_server import RESET, FakeEngine, FakeServer, Faults
from concur.validate.live.replay import LiveRun
from tests.live.helpers import as_server, live_scenario, run_on_fake, small_workload

NONE = live_scenario()


def run_beside_a_stranger(engine: FakeEngine) -> tuple[LiveRun, FakeServer]:
    """A run during which someone else makes one call of 100 prompt and 7 output tokens."""

    async def stranger(server: FakeServer) -> None:
        body = {"prompt": list(range(5000, 5100)), "max_tokens": 7}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/v1/completions", json=body),
        ):
            pass

    async def main() -> tuple[LiveRun, FakeServer]:
        async with FakeServer(engine).running() as server:
            run = LiveRun(NONE, small_workload(), as_server(server))
            running = asyncio.create_task(run.run())
            while not run.tables.requests:
                await asyncio.sleep(0.001)
            await stranger(server)
            await running
            return run, server

    return asyncio.run(main())


def test_the_engines_counters_give_the_hit_rate_of_a_server_that_tells_none_per_call() -> None:
    record, server, _ = run_on_fake(NONE, small_workload(), tells_cached_tokens=False)
    assert record.requests["cached_tokens"].isna().all()
    cached = sum(served.cached_tokens for served in server.served)
    assert record.metrics["cached_tokens"] == cached > 0
    assert record.metrics["hit_rate"] == cached / record.metrics["prompt_tokens"]
    assert record.run["complete"] is True
    (warning,) = record.run["warnings"]
    assert "the hit rate is that of its counters" in warning
    assert "--enable-prompt-tokens-details" in warning


def test_counters_that_are_not_the_runs_alone_give_no_hit_rate() -> None:
    run, _ = run_beside_a_stranger(FakeEngine(token_s=0.001, tells_cached_tokens=False))
    record = run.record()
    assert (record.metrics["hit_rate"], record.metrics["cached_tokens"]) == (None, None)
    assert any("the hit rate is not measured" in line for line in record.run["warnings"])


def test_what_someone_else_asked_of_the_engine_is_found_to_the_token() -> None:
    run, _ = run_beside_a_stranger(FakeEngine(token_s=0.001))
    record = run.record()
    assert record.run["foreign_tokens"] == {"prompt": 100, "generated": 7}
    assert "100 prompt and 7 generated tokens beyond the run's own" in record.run["warnings"][0]
    assert record.run["complete"] is True


def test_a_run_that_was_alone_has_no_foreign_tokens() -> None:
    record, _, _ = run_on_fake(NONE, small_workload())
    assert record.run["foreign_tokens"] == {"prompt": 0, "generated": 0}


@pytest.mark.parametrize(
    "faults", [Faults(calls={3: 500}), Faults(metrics={4: RESET}), Faults(calls={3: 400})]
)
def test_where_calls_were_repeated_or_readings_are_missing_nothing_is_called_foreign(faults: Faults) -> None:
    record, _, _ = run_on_fake(NONE, small_workload(), faults=faults)
    assert record.run["foreign_tokens"] is None
    assert not any("someone else" in line for line in record.run["warnings"])


def tables(*, queries: int, hits: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    call = RequestRow(0, 0, 0.0, 0.0, 0.0, 1.0, 2.0, 1000, 0, None, None, None, 50, None)
    counters = {"prefix_cache_queries_tokens": queries, "prefix_cache_hits_tokens": hits}
    zeros = (
        dict.fromkeys(TimelineRow._fields, 0) | {"prompt_tokens": 1000, "generation_tokens": 50} | counters
    )
    return table_of("requests", [call]).to_pandas(), table_of("timeline", [TimelineRow(**zeros)]).to_pandas()


def test_a_release_that_counts_refused_admissions_again_is_not_believed() -> None:
    """One prompt of 1,000 tokens looked up twice is 2,000 queries: 800 / 2,000 is nobody's hit rate."""
    assert account(*tables(queries=1000, hits=400), is_once=True).cache_metrics()["hit_rate"] == 0.4
    assert account(*tables(queries=2000, hits=800), is_once=True).cache_metrics() == {}
    assert account(*tables(queries=0, hits=0), is_once=True).cache_metrics() == {}


def test_an_engine_that_counted_too_little_is_taken_for_one_of_several() -> None:
    assert "one of several" in (explain_foreign({"prompt": -500, "generated": -20}) or "")
    assert explain_foreign({"prompt": 0, "generated": 0}) is None
    assert explain_foreign(None) is None
