"""Real clients, many turns, tools and all, through the gateway against the scripted server."""

import asyncio

import aiohttp
import pytest

from tests.clients.stage import CLIENTS, NAMES, SDKS, Stage, staged

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (CLIENTS / "bin").is_dir(), reason="clients are not here; run `make test-clients`"
    ),
]
SCRIPT = "SCRIPT[sh ls; sh pwd & echo two; sh echo three; say all done]"
MINI_SCRIPT = "SCRIPT[sh ls; sh pwd & echo two; sh echo three; sh echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT]"
SOURCES = {"responses": "cache_key", "mini-swe-agent": "fingerprint"}


def script_of(client: str) -> str:
    return MINI_SCRIPT if client == "mini-swe-agent" else SCRIPT


def check_all_turns(stage: Stage, num_clients: int) -> None:
    """Every turn of every client was made, and made once."""
    scripted = [call for call in stage.server.served if call.is_scripted]
    assert len(scripted) == 4 * num_clients
    assert set(stage.server.copies.values()) == {1}
    assert {call["status"] for call in stage.calls} == {200}
    assert not stage.gateway.service.num_held


@pytest.mark.parametrize("client", NAMES)
def test_a_client_runs_many_turns_and_is_known_by_its_name(client: str) -> None:
    async def main() -> None:
        async with staged(cap=1) as stage:
            printed = await stage.run(client, 0, script_of(client))
            if client != "mini-swe-agent":
                assert "all done" in printed
            check_all_turns(stage, 1)
            told = [call for call in stage.calls if call.get("output_tokens")]
            assert len(told) == len(stage.calls)  # each told its usage
            assert {call["source"] for call in told} == {SOURCES.get(client, "header")}
            assert len({call["agent"] for call in told}) == 1

    asyncio.run(main())


def test_sub_agents_of_claude_code_run_in_the_slot_of_their_parent() -> None:
    async def main() -> None:
        async with staged(cap=1) as stage:
            await stage.run("claude-code", 0, "SCRIPT[sh ls; children 2; say all done]")
            parents = {call.get("parent") for call in stage.calls}
            agents = {call["agent"] for call in stage.calls}
            assert len(agents) == 3
            assert len(parents - {None}) == 1
            assert parents - {None} < agents

    asyncio.run(main())


def test_twenty_clients_behind_a_window_of_four_all_end() -> None:
    async def main() -> None:
        crew = {"claude-code": 4, "codex": 4, "mini-swe-agent": 4, "openai": 2, "responses": 2}
        crew |= {"anthropic": 2, "litellm": 2}
        async with staged(cap=4, keep_alive_s=1.0) as stage:
            async with asyncio.TaskGroup() as group:
                for client, count in crew.items():
                    for number in range(count):
                        group.create_task(stage.run(client, number, script_of(client)))
            check_all_turns(stage, 20)
            assert stage.server.most_running <= 4 + 4  # side calls of an agent share its slot
            waits_s = [call["wait_s"] for call in stage.calls]
            assert max(waits_s) > 1.0
            async with (
                aiohttp.ClientSession() as session,
                session.get(stage.gateway.url + "/metrics") as answer,
            ):
                page = await answer.text()
            assert f"concur_gateway_wait_seconds_count {float(len(waits_s))}" in page
            print(f"{len(stage.calls)} calls, longest wait {max(waits_s):.1f} s")

    asyncio.run(main())


@pytest.mark.parametrize("client", ["claude-code", "codex", *SDKS])
def test_a_client_is_held_beyond_its_first_time_out(client: str) -> None:
    async def main() -> None:
        async with staged(cap=1, keep_alive_s=0.5) as stage:
            gate = stage.gateway.control.gate
            async with gate.agent("holder") as holder:
                stack = holder.step()
                await stack.__aenter__()
                timeouts = {"TIMEOUT_S": "3", "API_TIMEOUT_MS": "3000"}
                running = asyncio.create_task(stage.run(client, 0, SCRIPT, **timeouts))
                async with asyncio.timeout(60):
                    while not stage.gateway.service.num_held:
                        await asyncio.sleep(0.05)
                await asyncio.sleep(7)
                assert not running.done()
                await stack.__aexit__(None, None, None)
            assert "all done" in await running
            check_all_turns(stage, 1)
            assert max(call["wait_s"] for call in stage.calls) > 6

    asyncio.run(main())


@pytest.mark.parametrize("client", ["claude-code", "codex"])
def test_a_client_that_is_sent_away_comes_again_and_ends(client: str) -> None:
    async def main() -> None:
        async with staged(cap=1, keep_alive_s=0.5, max_hold_s=2.0) as stage:
            gate = stage.gateway.control.gate
            async with gate.agent("holder") as holder:
                stack = holder.step()
                await stack.__aenter__()
                running = asyncio.create_task(stage.run(client, 0, SCRIPT))
                async with asyncio.timeout(60):
                    while not any(call.get("refused") == "held_too_long" for call in stage.calls):
                        await asyncio.sleep(0.05)
                await stack.__aexit__(None, None, None)
            assert "all done" in await running
            scripted = [call for call in stage.server.served if call.is_scripted]
            assert len(scripted) == 4
            assert set(stage.server.copies.values()) == {1}

    asyncio.run(main())
