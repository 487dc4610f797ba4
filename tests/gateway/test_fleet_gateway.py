"""Several upstreams, each with a gate of its own: who goes where, and where those whose engine dies."""

import asyncio
from typing import Any

import aiohttp
import pytest

from concur.gateway.app import Gateway
from concur.gateway.config import load_config
from concur.gateway.fleet_control import FleetControl
from concur.sim.errors import ScenarioError
from tests.gateway.helpers import STREAM, Door, Upstream, asking, gateway, named, says, until

SAYS = b'data: {"choices": [{"delta": {"tool_calls": [{"id": "c"}]}}]}\n\n' + STREAM["chat"]
FLEET: dict[str, Any] = {"fleet": {"routing": "session"}}


async def call(made: Gateway, client: aiohttp.ClientSession, agent: str, **more: str) -> int:
    url = f"{made.url}/v1/chat/completions"
    async with client.post(url, json=asking(), headers=named(agent, **more)) as answer:
        await answer.read()
        return answer.status


def names_at(upstream: Upstream) -> list[str]:
    return [seen.headers["x-session-id"] for seen in upstream.seen]


def books(made: Gateway) -> tuple[int, ...]:
    control = made.control
    assert isinstance(control, FleetControl)
    fleet = control.gate.fleet
    return (*(load.num_in_flight for load in fleet.loads), fleet.active, fleet.waiting, fleet.paused)


def test_each_upstream_has_a_window_of_its_own_and_a_tree_stays_together() -> None:
    async def main() -> None:
        doors = [Door(says(SAYS)), Door(says(SAYS))]
        async with (
            Upstream(doors[0]).running() as one,
            Upstream(doors[1]).running() as two,
            gateway(one, two, **FLEET) as made,
            aiohttp.ClientSession() as client,
        ):
            calls = [asyncio.create_task(call(made, client, f"a{number}")) for number in range(8)]
            await until(lambda: made.service.num_held == 6 and all(door.arrived for door in doors))
            assert [door.arrived for door in doors] == [1, 1], "a cap of one, on each"
            for door in doors:
                door.open()
            lease_ends = {"x-session-final": "true"}
            for number in range(8):
                await call(made, client, f"a{number}", **lease_ends)
            assert set(await asyncio.gather(*calls)) == {200}
            for number in range(8):
                await call(made, client, f"c{number}", **{"x-parent-session-id": f"a{number}"} | lease_ends)
            assert set(names_at(one)) | set(names_at(two)) == {
                f"{kind}{n}" for kind in "ac" for n in range(8)
            }
            for number in range(8):
                homes = [upstream.url for upstream in (one, two) if f"a{number}" in names_at(upstream)]
                assert len(homes) == 1
            assert books(made) == (0, 0, 0, 0, 0)

    asyncio.run(main())


def test_who_waits_for_an_upstream_that_dies_goes_to_the_other_and_nothing_is_lost() -> None:
    async def main() -> None:
        door = Door(says(SAYS))
        one, two = Upstream(door), Upstream(says(SAYS))
        final = {"x-session-final": "true"}
        async with two.running(), aiohttp.ClientSession() as client:
            async with one.running():
                block = gateway(one, two, **FLEET)
                made = await block.__aenter__()
                assert isinstance(made.control, FleetControl)
                made.control.gate._down_after = 10**9  # the call finds out, not the readings
                names = [f"a{number}" for number in range(12)]
                calls = [asyncio.create_task(call(made, client, name, **final)) for name in names]
                await until(lambda: door.arrived == 1 and made.service.num_held and not two.num_open)
                held = made.service.num_held
                assert held > 1
                at_two = len(two.seen)
            answers = await asyncio.gather(*calls)  # the one in flight is cut; whoever waited has moved
            assert len(two.seen) >= at_two + held
            cut = [name for name, status in zip(names, answers, strict=True) if status != 200]
            assert len(cut) <= 1
            for name in cut:
                assert await call(made, client, name, **final) == 200
            assert set(names_at(two)) == set(names)
            assert [load.is_up for load in made.control.gate.fleet.loads] == [False, True]
            assert books(made) == (0, 0, 0, 0, 0)
            await block.__aexit__(None, None, None)

    asyncio.run(main())


def test_an_upstream_is_back_with_the_first_reading_and_status_and_metrics_show_the_sum() -> None:
    async def main() -> None:
        async with (
            Upstream(says(SAYS)).running() as one,
            Upstream(says(SAYS)).running() as two,
            gateway(one, two, **FLEET) as made,
            aiohttp.ClientSession() as client,
        ):
            assert isinstance(made.control, FleetControl)
            loads = made.control.gate.fleet.loads
            two.metrics_status = 500
            await until(lambda: not loads[1].is_up)
            for number in range(6):
                assert await call(made, client, f"a{number}", **{"x-session-final": "true"}) == 200
            assert not two.seen
            two.metrics_status = 200
            await until(lambda: loads[1].is_up)
            async with client.get(f"{made.url}/status?format=json") as answer:
                told = await answer.json()
            assert told["window"] == 2, "one on each"
            assert [each["window"] for each in told["upstreams"]] == [1, 1]
            assert [each["is_up"] for each in told["upstreams"]] == [True, True]
            async with client.get(f"{made.url}/metrics") as answer:
                assert answer.status == 200
            await until(lambda: made.control.samples)

    asyncio.run(main())


def test_without_any_upstream_left_calls_are_refused_and_asked_to_come_again() -> None:
    async def main() -> None:
        async with (
            Upstream(says(SAYS)).running() as one,
            Upstream(says(SAYS)).running() as two,
            gateway(one, two, **FLEET) as made,
            aiohttp.ClientSession() as client,
        ):
            assert isinstance(made.control, FleetControl)
            loads = made.control.gate.fleet.loads
            one.metrics_status = two.metrics_status = 500
            await until(lambda: not any(load.is_up for load in loads))
            assert await call(made, client, "a") == 503
            one.metrics_status = 200
            await until(lambda: loads[0].is_up)
            assert await call(made, client, "a", **{"x-session-final": "true"}) == 200
            assert books(made) == (0, 0, 0, 0, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("fleet.routing=cache_aware", "routing"),
        ("fleet.ttl_s=3", "ttl_s is not a parameter of 'session'"),
    ],
)
def test_routers_that_look_into_prompts_are_refused(override: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        load_config(None, {"upstreams": ["http://127.0.0.1:8000"]}, [override])
