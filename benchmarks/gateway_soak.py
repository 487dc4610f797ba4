"""What the gateway costs, and whether it stays what it was: `python -m benchmarks.gateway_soak --minutes 5`.

Three processes: a streaming server that answers at once, the gateway, and as many sessions as asked for,
each of which calls, waits a while and calls again. First nothing is held: the same calls go straight to the
server and through the gateway in turn, one session at a time and then under load, and the difference is
what the gateway adds. Then all sessions stand behind a window of an eighth of them, for the rest of the
time: every tenth call is given up by its client, and memory, sockets and tasks are looked at as they go. A
session's last call says so.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NUM_EVENTS: Final = 20
_PATH: Final = "/v1/chat/completions"
_CHUNK: Final = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
_END: Final = (
    b'data: {"choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 20}}\n\ndata: [DONE]\n\n'
)
_COUNTERS: Final = ("prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens")
_METRICS: Final = "\n".join(
    [
        *(f'vllm:{name}{{engine="0"}} 0' for name in ("num_requests_running", "num_requests_waiting")),
        'vllm:kv_cache_usage_perc{engine="0"} 0',
        *(f'vllm:{name}_total{{engine="0"}} 0' for name in (*_COUNTERS, "generation_tokens")),
        'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="60000"} 1',
        "",
    ]
)
_PROMPT: Final = "You are a careful agent. " * 160


async def _answer(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    with suppress(ConnectionResetError):  # a client that gave up is part of the play
        await response.prepare(request)
        for _ in range(_NUM_EVENTS):
            await response.write(_CHUNK)
            await asyncio.sleep(body.get("pause_s", 0))
        await response.write(_END)
    return response


async def _engine() -> None:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post(_PATH, _answer)
    app.router.add_get("/metrics", _metrics)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print("http://{}:{}".format(*runner.addresses[0][:2]), flush=True)
    await asyncio.Event().wait()


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(text=_METRICS)


@asynccontextmanager
async def _started(*arguments: str, log: Path | None = None) -> "AsyncIterator[tuple[int, str]]":
    """Run a Python process; yield its id and the address that it tells."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE if log is None else None
    )
    try:
        if log is None:
            assert process.stdout is not None
            url = (await process.stdout.readline()).decode().strip()
        else:
            url = await _address(log)
        yield process.pid, url
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _address(log: Path) -> str:
    while True:
        await asyncio.sleep(0.05)
        if log.exists():
            for line in log.read_text(encoding="utf-8").splitlines():
                if '"listening"' in line:
                    return str(json.loads(line)["url"])


@asynccontextmanager
async def _gateway(upstream: str, cap: int, folder: Path) -> "AsyncIterator[tuple[int, str]]":
    log = folder / f"gateway-{cap}.log"
    sets = [f"controller.cap={cap}", "port=0", f"log={log}", "limits.drain_s=1", "record.rotate_s=60"]
    options = ["--upstream", upstream, "--controller", "agent_cap", "--record", str(folder / f"rec-{cap}")]
    options += [word for each in sets for word in ("--set", each)]
    program = "from concur.gateway.cli import app; app()"
    async with _started("-c", program, *options, log=log) as found:
        yield found


async def _call(
    client: aiohttp.ClientSession, url: str, name: str, *, pause_s: float = 0.0, is_last: bool = False
) -> tuple[float, float]:
    """Make a call; return seconds to its first byte, and to its end."""
    body = {
        "model": "m",
        "stream": True,
        "pause_s": pause_s,
        "messages": [{"role": "user", "content": _PROMPT}],
    }
    headers = {"x-session-id": name} | ({"x-session-final": "1"} if is_last else {})
    begun_s = perf_counter()
    async with client.post(url + _PATH, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        await answer.content.readany()
        first_s = perf_counter() - begun_s
        async for _ in answer.content.iter_any():
            pass
    return first_s, perf_counter() - begun_s


def _quantile(values: list[float], level: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(level * 1000) - 1]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    return (
        int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / 1e6
    )


def _num_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def _latency(
    client: aiohttp.ClientSession, direct: str, through: str, pid: int, num: int, at_once: int, table: Table
) -> None:
    """Compare calls straight and through the gateway, in turn, `at_once` of them at a time."""
    times: dict[str, list[tuple[float, float]]] = {direct: [], through: []}
    cpu_s = 0.0
    for batch in range(num // at_once):
        for url in (direct, through) if batch % 2 else (through, direct):
            before_s = _cpu_s(pid)
            calls = [_call(client, url, f"l{number}") for number in range(at_once)]
            times[url] += await asyncio.gather(*calls)
            cpu_s += _cpu_s(pid) - before_s if url == through else 0
    for place, word in enumerate(("first byte", "last byte")):
        straight, held = ([each[place] for each in times[url]] for url in (direct, through))
        table.add_row(
            f"{at_once} at once, {word}",
            *(
                f"{1e3 * (_quantile(held, level) - _quantile(straight, level)):.2f}"
                for level in (0.5, 0.9, 0.99)
            ),
            f"{1e3 * cpu_s / len(held):.2f}",
        )


async def _session(
    client: aiohttp.ClientSession, url: str, number: int, until_s: float, counts: dict[str, int]
) -> None:
    rng = random.Random(number)
    life = 0
    while perf_counter() < until_s:
        life += 1
        for turn in range(8):
            gives_up = rng.random() < 0.1
            call = _call(client, url, f"s{number}-{life}", pause_s=0.01, is_last=turn == 7)
            try:
                await asyncio.wait_for(call, rng.uniform(0.01, 1.0) if gives_up else None)
                counts["answered"] += 1
            except TimeoutError:
                counts["given up"] += 1
            except aiohttp.ClientError:
                counts["failed"] += 1
            await asyncio.sleep(rng.uniform(0.0, 2.0))


async def _soak(client: aiohttp.ClientSession, url: str, pid: int, sessions: int, minutes: float) -> Table:
    table = Table("minute", "RSS (MB)", "open files", "answered", "given up", "failed", "CPU (ms/call)")
    counts = dict.fromkeys(("answered", "given up", "failed"), 0)
    begun_s, before_s = perf_counter(), _cpu_s(pid)
    until_s = begun_s + 60 * minutes
    running = [
        asyncio.create_task(_session(client, url, number, until_s, counts)) for number in range(sessions)
    ]
    samples = max(4, round(minutes * 2))
    for sample in range(1, samples + 1):
        await asyncio.sleep(max(0.0, begun_s + sample * 60 * minutes / samples - perf_counter()))
        calls = max(1, sum(counts.values()))
        table.add_row(
            f"{(perf_counter() - begun_s) / 60:.1f}",
            f"{_rss_mb(pid):.1f}",
            str(_num_files(pid)),
            *(f"{counts[name]:,}" for name in counts),
            f"{1e3 * (_cpu_s(pid) - before_s) / calls:.2f}",
        )
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    await asyncio.sleep(2)
    async with client.get(url + "/status") as answer:
        now: dict[str, Any] = await answer.json()
    table.caption = (
        f"after the last one: {now['calls']}, {_rss_mb(pid):.1f} MB, {_num_files(pid)} open files, "
        f"{now['agents']['active']} of {now['window']} slots"
    )
    return table


async def main(minutes: float, sessions: int) -> None:
    """Run all of it."""
    console = Console(width=120)
    connector = aiohttp.TCPConnector(limit=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with (
            _started("-m", "benchmarks.gateway_soak", "--engine") as (_, engine),
            aiohttp.ClientSession(connector=connector) as client,
        ):
            added = Table("added by the gateway (ms)", "p50", "p90", "p99", "CPU (ms/call)")
            async with _gateway(engine, 10_000, folder) as (pid, url):
                await _latency(client, engine, url, pid, 200, 1, Table(*["-"] * 5))  # warm
                await _latency(client, engine, url, pid, 2000, 1, added)
                await _latency(client, engine, url, pid, 2000, 10, added)
            console.print(added)
            async with _gateway(engine, max(1, sessions // 8), folder) as (pid, url):
                console.print(await _soak(client, url, pid, sessions, minutes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    asyncio.run(_engine() if given.engine else main(given.minutes, given.sessions))
