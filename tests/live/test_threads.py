"""The bridge for agents on threads: turns that block a thread, errors that come through, no slot lost."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from concur.controllers import make_controller
from concur.errors import GateError
from concur.gate import AgentGate
from concur.live.controlling import ControlledGate
from concur.live.errors import ControlError
from concur.live.gate import AsyncGate
from concur.live.threads import ThreadGate, gate_on_thread
from concur.signals import Snapshot


async def read() -> Snapshot:
    return Snapshot(time_s=asyncio.get_running_loop().time())


def make_gate() -> ControlledGate:
    return ControlledGate(
        make_controller("agent_cap", cap=3, interval_s=0.01), AgentGate(3), read, interval_s=0.01
    )


def test_threads_take_turns_and_the_window_holds() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def agent(number: int) -> None:
        nonlocal running, most
        with gate.agent(f"a{number}") as me:
            for step_number in range(5):
                with me.step() as step:
                    with lock:
                        running += 1
                        most = max(most, running)
                    threading.Event().wait(0.002)
                    step.context_tokens = step_number
                    with lock:
                        running -= 1

    with gate_on_thread(make_gate) as gate, ThreadPoolExecutor(16) as pool:
        list(pool.map(agent, range(40)))
    assert most == 3
    assert gate.gate.gate.active == gate.gate.gate.waiting == 0
    assert gate.gate.num_contexts == 200


def test_errors_come_through_in_both_directions_and_hold_nothing_back() -> None:
    with gate_on_thread(make_gate) as gate:
        with pytest.raises(OSError, match="tool broke"), gate.agent("a") as me, me.step():
            raise OSError("tool broke")
        with gate.agent("a") as parent:
            with pytest.raises(GateError, match="arrived twice"), gate.agent("a"):
                pass
            with gate.agent("b", parent=parent) as child, child.step():
                assert [view.parent for view in gate.gate.gate.views()] == [None, "a"]
        assert not gate.gate.gate.is_here("a")


def test_what_breaks_the_loop_reaches_the_threads() -> None:
    async def broken() -> Snapshot:
        raise KeyError("bug")

    def make() -> ControlledGate:
        return ControlledGate(make_controller("none", interval_s=0.01), AgentGate(1), broken)

    def work_for_ever() -> None:
        with gate_on_thread(make) as gate, gate.agent("a") as me:
            while True:
                with me.step():
                    threading.Event().wait(0.01)

    with pytest.raises(ControlError, match="bug"):
        work_for_ever()


def test_its_own_loop_may_not_wait_for_itself() -> None:
    async def main() -> None:
        gate = ThreadGate(AsyncGate(AgentGate(1)), asyncio.get_running_loop())
        with pytest.raises(GateError, match="wait for itself"), gate.agent("a"):
            pass

    asyncio.run(main())
