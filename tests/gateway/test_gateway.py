"""The gateway as a process: sessions, keys, switches, drain, records, its own pages."""

import asyncio
import gzip
import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from concur.gateway.app import Gateway
from concur.gateway.config import load_config
from concur.gateway.errors import GatewayError, UpstreamError
from concur.gateway.logs import EventLog
from concur.gateway.sessions import choose_upstream
from concur.sim.errors import ScenarioError
from concur.sim.record.record import load_record
from tests.gateway.helpers import (
    PATHS,
    STREAM,
    Door,
    Upstream,
    asking,
    config,
    gateway,
    named,
    one,
    says,
    until,
    whole,
)
from tests.helpers import ROOT, concur

TOOL_CALL = b'data: {"choices": [{"delta": {"tool_calls": [{"id": "c"}]}}]}\n\n' + STREAM["chat"]


async def call(made: Gateway, client: aiohttp.ClientSession, agent: str = "a", **body: Any) -> int:
    headers = named(agent) | body.pop("headers", {})
    async with client.post(made.url + PATHS["chat"], json=asking(**body), headers=headers) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize(
    ("answer", "tools", "leaves"),
    [(STREAM["chat"], True, True), (TOOL_CALL, True, False), (STREAM["chat"], False, False)],
)
def test_an_agent_leaves_after_an_answer_that_calls_none_of_its_tools(
    answer: bytes, tools: bool, leaves: bool
) -> None:
    async def main() -> None:
        async with one(says(answer), sessions={"turn_ends_s": 5}) as (made, _, client):
            offered: dict[str, Any] = {"tools": [{"type": "function"}]} if tools else {}
            await call(made, client, **offered)
            (session,) = made.sessions
            now_s = made.now_s()
            assert made.sessions.due(now_s + 4) == []
            assert made.sessions.due(now_s + 6) == ([(session, "turn")] if leaves else [])
            assert made.sessions.due(now_s + 1801)[0][1] == ("turn" if leaves else "idle")

    asyncio.run(main())


def test_a_session_that_says_so_leaves_in_its_last_call() -> None:
    async def main() -> None:
        async with one(says(STREAM["chat"])) as (made, _, client):
            await call(made, client)
            assert made.control.gate.gate.active == 1
            await call(made, client, headers={"x-session-final": "true"})
            assert made.control.gate.gate.active == len(made.sessions) == 0
            assert made.sessions.num_ended["header"] == 1

    asyncio.run(main())


def test_a_sub_agent_runs_in_the_slot_of_its_parent() -> None:
    async def main() -> None:
        async with one(says(TOOL_CALL)) as (made, upstream, client):
            await call(made, client, "parent")
            await call(made, client, "child", headers={"x-parent-session-id": "parent"})
            assert len(upstream.seen) == 2  # behind a cap of one, and nobody has left
            assert made.control.gate.gate.lent == 1

    asyncio.run(main())


def test_a_silent_agent_loses_its_slot_to_who_waits_and_that_is_counted() -> None:
    async def main() -> None:
        async with one(says(TOOL_CALL), gate={"lease_s": 0.05}) as (made, _, client):
            await call(made, client, "a")
            await call(made, client, "b")  # behind a cap of one, and nobody has left
            assert b"concur_gateway_expired_leases_total 1.0" in made.metrics.page()

    asyncio.run(main())


def test_who_is_unknown_passes_beside_or_under_the_gate_by_the_switch() -> None:
    async def main(unknown: str, num_steps: int) -> None:
        async with one(says(STREAM["completions"]), identity={"unknown": unknown}) as (made, _, client):
            for _ in range(3):
                async with client.post(
                    made.url + PATHS["completions"], json={"prompt": "x", "model": "m"}
                ) as answer:
                    assert (await answer.read()) == STREAM["completions"]
            assert made.control.gate.num_steps == num_steps
            assert len(made.sessions) == 0

    asyncio.run(main("beside", 0))
    asyncio.run(main("gated", 3))
    asyncio.run(main("fingerprint", 0))  # a prompt alone tells nobody


def test_a_tree_of_agents_stays_with_the_upstream_that_it_began_on() -> None:
    async def main() -> None:
        async with (
            Upstream(says(TOOL_CALL)).running() as one_,
            Upstream(says(TOOL_CALL)).running() as two,
            gateway(one_, two, controller={"kind": "none"}) as made,
            aiohttp.ClientSession() as client,
        ):
            for number in range(12):
                for _ in range(2):
                    await call(made, client, f"a{number}")
                await call(made, client, f"c{number}", headers={"x-parent-session-id": f"a{number}"})
            for upstream in (one_, two):
                names = [seen.headers["x-session-id"][1:] for seen in upstream.seen]
                assert names
                assert all(names.count(name) == 3 for name in names)

    asyncio.run(main())


def test_agents_of_an_upstream_that_does_not_answer_go_to_another() -> None:
    async def main() -> None:
        one_, two = Upstream(says(TOOL_CALL)), Upstream(says(TOOL_CALL))
        async with two.running(), aiohttp.ClientSession() as client:
            async with one_.running():
                block = gateway(one_, two, controller={"kind": "none"})
                made = await block.__aenter__()
                names = [f"a{number}" for number in range(12)]
                for name in names:
                    assert await call(made, client, name) == 200
                moved = {seen.headers["x-session-id"] for seen in one_.seen}
                assert moved
            first = [await call(made, client, name) for name in names]
            assert first.count(502) == 1  # whoever found out
            assert {await call(made, client, name) for name in names} == {200}
            assert {session.upstream for session in made.sessions} == {two.url}
            await block.__aexit__(None, None, None)

    asyncio.run(main())


def test_without_one_upstream_only_its_own_agents_move() -> None:
    urls = ["http://a", "http://b", "http://c"]
    for number in range(200):
        before = choose_upstream(str(number), urls)
        after = choose_upstream(str(number), urls[:2])
        assert after == before or before == "http://c"


def test_a_body_beyond_the_bound_is_refused() -> None:
    async def main() -> None:
        limits = {"max_body_bytes": 1024, "start_s": 0, "drain_s": 5}
        async with one(says(b"")) as (_, upstream, client), gateway(upstream, limits=limits) as made:
            async with client.post(made.url + PATHS["messages"], data=b"x" * 1025) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["type"] == "body_too_large"
            assert not upstream.seen

    asyncio.run(main())


@pytest.mark.parametrize("target", ["@127.0.0.2:1/", "http://127.0.0.2:1/v1/models", "x"])
def test_no_request_reaches_another_host(target: str) -> None:
    async def main() -> None:
        async with one(says(b"")) as (made, upstream, _):
            host, port = made.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.readline()).split()[1]
            writer.close()
            assert status == b"400"
            assert not upstream.seen

    asyncio.run(main())


@pytest.mark.parametrize(
    "body", [b"", b"[" * 200_000, b'{"stream": ' + b"[" * 100_000, b"\xff\xfe", b'{"messages": "x"', b"null"]
)
def test_a_body_that_is_none_is_the_engines_to_refuse(body: bytes) -> None:
    async def main() -> None:
        async with one(whole({"error": "no JSON"}, status=400)) as (made, upstream, client):
            for path in PATHS.values():
                async with client.post(made.url + path, data=body) as answer:
                    assert (answer.status, await answer.json()) == (400, {"error": "no JSON"})
            assert {seen.body for seen in upstream.seen} == {body}

    asyncio.run(main())


def test_a_compressed_request_passes_as_it_is() -> None:
    async def main() -> None:
        async with one(says(STREAM["chat"])) as (made, upstream, client):
            raw = gzip.compress(json.dumps(asking()).encode())
            headers = named("a") | {"Content-Encoding": "gzip"}
            async with client.post(made.url + PATHS["chat"], data=raw, headers=headers) as answer:
                assert await answer.read() == STREAM["chat"]
            assert upstream.seen[0].headers["Content-Encoding"] == "gzip"
            assert made.control.gate.num_usages == 1

    asyncio.run(main())


def test_more_held_calls_or_agents_than_the_bounds_are_refused() -> None:
    async def main() -> None:
        door = Door(says(STREAM["chat"]))
        bounds = {"holding": {"max_held": 1}, "sessions": {"max_agents": 3}}
        async with one(door, **bounds) as (made, _, client):
            first = asyncio.create_task(call(made, client, "a"))
            await until(lambda: door.arrived == 1)
            held = asyncio.create_task(call(made, client, "b"))
            await until(lambda: made.service.num_held == 1)
            assert await call(made, client, "c") == 503
            assert await call(made, client, "d") == 503
            page = made.metrics.page()
            assert b'kind="too_many_held"} 1.0' in page
            assert b'kind="too_many_agents"} 1.0' in page
            held.cancel()
            door.open()
            await first

    asyncio.run(main())


def test_a_token_is_asked_for_and_the_upstreams_key_is_not_the_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATE_TOKEN", "sesame")
    monkeypatch.setenv("ENGINE_KEY", "secret")

    async def main() -> None:
        auth = {"token_env": "GATE_TOKEN", "upstream_key_env": "ENGINE_KEY"}
        async with one(says(STREAM["chat"]), auth=auth) as (made, upstream, client):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": ""}):
                assert await call(made, client, headers=headers) == 401
                async with client.get(made.url + "/status", headers=headers) as answer:
                    assert answer.status == 401
            assert not upstream.seen
            for headers in ({"Authorization": "Bearer sesame"}, {"x-api-key": "sesame"}):
                assert await call(made, client, headers=headers) == 200
                assert upstream.seen[-1].headers["Authorization"] == "Bearer secret"
                assert upstream.seen[-1].headers["x-api-key"] == "secret"
            async with client.get(made.url + "/health") as answer:
                assert answer.status == 200
        del auth["upstream_key_env"]
        async with one(says(STREAM["chat"]), auth=auth) as (made, upstream, client):
            assert await call(made, client, headers={"Authorization": "Bearer sesame"}) == 200
            assert "Authorization" not in upstream.seen[-1].headers

    asyncio.run(main())


def test_a_token_that_is_not_set_is_an_error_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATE_TOKEN", raising=False)
    with pytest.raises(GatewayError, match="GATE_TOKEN is not set"):
        Gateway(config(auth={"token_env": "GATE_TOKEN"}), EventLog(io.StringIO()))


@pytest.mark.parametrize("fail_open", [True, False])
def test_a_gate_that_fails_lets_calls_pass_or_refuses_them(fail_open: bool) -> None:
    async def main() -> None:
        door = Door(says(STREAM["chat"]))
        async with one(door, fail_open=fail_open) as (made, _, client):
            running = asyncio.create_task(call(made, client, "a"))
            await until(lambda: door.arrived == 1)
            held = asyncio.create_task(call(made, client, "b"))
            await until(lambda: made.service.num_held == 1)
            made.control.gate.fail(RuntimeError("the law broke"))
            door.open()
            expected = 200 if fail_open else 503
            assert await held == await call(made, client, "c") == expected
            assert await running == 200
            assert made.service.is_open == fail_open
            async with client.get(made.url + "/status") as answer:
                assert ("open" in (await answer.json())["state"]) == fail_open

    asyncio.run(main())


def test_draining_sends_away_who_waits_and_lets_run_what_runs() -> None:
    async def main() -> None:
        door = Door(says(STREAM["chat"]))
        upstream, stack = Upstream(door), gateway
        async with upstream.running(), aiohttp.ClientSession() as client:
            block = stack(upstream)
            made = await block.__aenter__()
            running = asyncio.create_task(call(made, client, "a"))
            await until(lambda: door.arrived == 1)
            held = asyncio.create_task(call(made, client, "b"))
            await until(lambda: made.service.num_held == 1)
            ending = asyncio.create_task(block.__aexit__(None, None, None))
            assert await held == 503
            assert not running.done()
            assert {session.agent_id for session in made.sessions} >= {"session-id:a"}  # nobody is sent off
            door.open()
            assert await running == 200
            await ending
            with pytest.raises(aiohttp.ClientConnectorError):
                await call(made, client, "c")

    asyncio.run(main())


async def has_decided(client: aiohttp.ClientSession, url: str) -> bool:
    async with client.get(url + "/metrics") as page:
        text = await page.text()
    (line,) = [line for line in text.splitlines() if line.startswith("concur_gateway_decisions_total ")]
    return float(line.split()[1]) > 0


def test_the_command_serves_and_ends_in_order_on_sigterm(tmp_path: Path) -> None:
    async def main() -> None:
        async with Upstream(says(STREAM["chat"])).running() as upstream, aiohttp.ClientSession() as client:
            log = tmp_path / "gateway.log"
            options = ["--upstream", upstream.url + "/v1/", "--controller", "agent_cap", "--port", "0"]
            keys = ["controller.cap=2", "controller.interval_s=0.05", f"log={log}"]
            sets = [word for key in keys for word in ("--set", key)] + ["--record", str(tmp_path / "rec")]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from concur.gateway.cli import app; app()", *options, *sets
            )
            try:
                await until(lambda: log.exists() and "listening" in log.read_text())
                url = json.loads(log.read_text().splitlines()[-1])["url"]
                headers = named("a") | {"Authorization": "Bearer hidden"}
                async with client.post(url + PATHS["chat"], json=asking(), headers=headers) as answer:
                    assert answer.status == 200
                await until(lambda: '"call"' in log.read_text())
                while not await has_decided(client, url):  # a record has at least one decision
                    await asyncio.sleep(0.02)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()
            events = [json.loads(line) for line in log.read_text().splitlines()]
            assert [event["event"] for event in events][-3:] == ["agent_left", "record", "ended"]
            assert "hidden" not in log.read_text()
            assert "hello" not in log.read_text()

    asyncio.run(main())


def test_calls_without_a_decision_are_no_record_and_that_is_said(tmp_path: Path) -> None:
    async def main() -> str:
        log = io.StringIO()
        async with Upstream(says(TOOL_CALL)).running() as upstream, aiohttp.ClientSession() as client:
            law = {"kind": "agent_cap", "cap": 2, "interval_s": 3600.0}
            asked = config(upstream.url, controller=law, record={"folder": str(tmp_path / "rec")})
            made = Gateway(asked, EventLog(log))
            async with made.running():
                await call(made, client, "a")
                await until(lambda: made.control.stretch and made.control.stretch.num_calls)
        return log.getvalue()

    events = [json.loads(line) for line in asyncio.run(main()).splitlines()]
    (lost,) = [event for event in events if event["event"] == "record_lost"]
    assert lost["cause"].startswith("1 calls, and the law has decided nothing in that time")
    assert not (tmp_path / "rec").exists()


def test_what_is_served_is_a_record_that_can_be_reported_and_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        tools = {"tools": [{"type": "function"}]}
        async with one(says(TOOL_CALL), record={"folder": str(tmp_path / "rec"), "keep": 2}) as (
            made,
            _,
            client,
        ):
            for stretch in range(3):
                for _ in range(3):
                    await call(made, client, "a", **tools)
                await until(lambda: made.control.stretch and len(made.control.stretch.tables.ticks) > 1)
                if stretch < 2:
                    over, made.control.stretch = made.control.stretch, made._new_stretch()
                    assert over is not None
                    await made._write(over)

    asyncio.run(main())
    first, second = sorted(path for path in (tmp_path / "rec").iterdir() if path.name.endswith("Z"))
    record = load_record(second)
    assert record.run["world"] == "live"
    assert record.metrics["num_requests"] == 3
    assert record.metrics["hit_rate"] == pytest.approx(8 / 11)
    assert list(record.requests["prompt_tokens"]) == [11, 11, 11]
    for _, row in record.requests.iterrows():
        assert 0 <= row["ready_s"] <= row["submitted_s"] <= row["first_token_s"] <= row["finished_s"]
    trace = tmp_path / "rec" / "again" / f"{second.name}.trace.jsonl.gz"
    assert len(json.loads(gzip.decompress(trace.read_bytes()))["steps"]) == 3
    assert len(list((tmp_path / "rec" / "again").iterdir())) == 4
    assert concur(monkeypatch, "report", str(first), "--out", str(tmp_path / "report")) == 0
    assert (tmp_path / "report" / "index.html").exists()
    scenario = tmp_path / "rec" / "again" / f"{second.name}.toml"
    assert concur(monkeypatch, "simulate", str(scenario), "--out", str(tmp_path / "sim")) == 0
    assert load_record(tmp_path / "sim").metrics["num_requests"] == 3


def test_status_is_json_for_machines_and_a_page_for_people() -> None:
    async def main() -> None:
        async with one(says(STREAM["chat"])) as (made, _, client):
            await call(made, client)
            await until(lambda: made.control.samples)
            async with client.get(made.url + "/status") as answer:
                told = await answer.json()
            assert (told["window"], told["agents"]["active"], told["state"]) == (1, 1, "controlled")
            assert told["here"][0]["agent"] == "session-id:a"
            assert told["here"][0]["context_tokens"] == 14
            assert told["samples"][-1]["window"] == 1
            async with client.get(made.url + "/status", headers={"Accept": "text/html,*/*"}) as answer:
                page = await answer.text()
            assert answer.content_type == "text/html"
            assert "http" not in page.replace("https://", "http")  # self-contained

    asyncio.run(main())


def test_metrics_are_a_page_of_their_own() -> None:
    async def main() -> None:
        async with one(says(STREAM["chat"])) as (made, upstream, client):
            await call(made, client)
            upstream.metrics_status = 500
            await until(lambda: made.control.num_stale)
            async with client.get(made.url + "/metrics") as answer:
                page = await answer.text()
            for line in (
                "concur_gateway_window 1.0",
                'concur_gateway_agents{state="active"} 1.0',
                "concur_gateway_wait_seconds_count 1.0",
                'concur_gateway_calls_total{protocol="chat",status="200"} 1.0',
                "concur_gateway_resends_total 0.0",
            ):
                assert line in page
            assert "concur_gateway_stale_signals_total 0.0" not in page
            assert "vllm:" not in page

    asyncio.run(main())


def test_the_dashboard_asks_for_what_is_published() -> None:
    async def main() -> set[str]:
        async with one(says(STREAM["chat"])) as (made, _, client):
            await call(made, client, headers={"x-session-final": "1"})
            return set(re.findall(r"^# TYPE (\w+)", made.metrics.page().decode(), re.MULTILINE))

    published = asyncio.run(main())
    board = json.loads((ROOT / "gateway" / "grafana.json").read_text())
    asked = {
        name.removesuffix("_bucket")
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"concur_gateway_\w+", target["expr"])
    }
    assert len(asked) > 15
    assert asked <= published


def test_upstreams_that_are_not_there_or_no_engines_are_told_before_anything_is_served() -> None:
    async def main() -> None:
        with pytest.raises(UpstreamError, match="start the engine first"):
            async with Gateway(config(), EventLog(io.StringIO())).running():
                raise AssertionError("never here")
        upstream = Upstream(whole({}))
        async with upstream.running():
            upstream.metrics_status = 404
            with pytest.raises(UpstreamError, match="404"):
                async with gateway(upstream):
                    raise AssertionError("never here")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["port=70000"], "port"),
        (["upstreams=['ftp://x']"], "upstreams"),
        (["upstreams=['http://x/v1','http://x']"], "named once"),
        (["holding.keep_alive_s=100", "holding.max_hold_s=50"], "less than"),
        (["holding.max_hald_s=50"], "max_hald_s"),
        (["controller.kind=nobody"], "nobody"),
        (["auth.token_env=a b"], "token_env"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_clear_line(overrides: list[str], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        load_config(None, {"upstreams": ["http://127.0.0.1:8000"]}, overrides)


def test_options_overrule_the_file_and_another_law_takes_none_of_its_parameters(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        'upstreams = ["http://a:1"]\nport = 1\n[controller]\nkind = "agent_cap"\ncap = 3\n'
        "[holding]\nkeep_alive_s = 9\n"
    )
    made = load_config(file, {"port": 2, "controller": None})
    assert (made.port, made.controller.label, made.holding.keep_alive_s) == (2, "agent_cap=3", 9)
    for policy in ("hybrid", "agent_cap=24", "concur+app_limited"):
        assert load_config(file, {"controller": policy}).controller.label == policy
    assert (made.gate.lease_s, made.gate.are_ends_told) == (120.0, False)


def test_the_log_leaves_out_what_is_not_known_and_survives_a_file_that_is_gone() -> None:
    stream = io.StringIO()
    EventLog(stream).write("call", agent="a", nothing=None)
    assert json.loads(stream.getvalue()).keys() == {"time", "event", "agent"}
    closed = io.StringIO()
    closed.close()
    EventLog(closed).write("call")
