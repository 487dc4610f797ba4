"""Our `vllm_dp` against vLLM's own balancer, call by call: its method is driven with scripted readings."""

import random
from collections import Counter
from itertools import count
from typing import Any

import pytest

from concur.routing import EngineLoad, RoutedCall, make_router

pytestmark = pytest.mark.vllm


class Theirs:
    """vLLM's balancer, without the processes around it."""

    def __init__(self, num_engines: int, client_count: int, client_index: int) -> None:
        from vllm.v1.engine.core_client import DPLBAsyncMPClient

        self.client: Any = object.__new__(DPLBAsyncMPClient)
        self.client.core_engines = [number.to_bytes(2, "little") for number in range(num_engines)]
        self.client.lb_engines = [[0, 0, 0.0] for _ in range(num_engines)]
        self.client.client_count = client_count
        self.client.client_index = client_index
        self.client.eng_start_index = num_engines * client_index // client_count
        self.client.reqs_in_flight = {}
        self.client.engine_inflight = Counter()
        self._finish = DPLBAsyncMPClient.process_engine_outputs

    def route(self, request_id: str) -> int:
        asked = _Asked(request_id)
        return int.from_bytes(self.client.get_core_engine_for_request(asked), "little")

    def finish(self, request_id: str) -> None:
        import asyncio

        asyncio.run(self._finish(self.client, _Outputs({request_id})))

    def observe(self, counts: list[list[Any]]) -> None:
        self.client.lb_engines = counts


class _Asked:
    data_parallel_rank = None
    pooling_params = None

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id


class _Outputs:
    def __init__(self, finished: set[str]) -> None:
        self.finished_requests = finished


@pytest.mark.parametrize(("num_engines", "client_count"), [(2, 1), (4, 1), (8, 3), (16, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_every_call_goes_to_the_engine_that_vllms_own_balancer_names(
    num_engines: int, client_count: int, seed: int
) -> None:
    rng, numbers = random.Random(seed), count()
    client_index = seed % client_count
    theirs = Theirs(num_engines, client_count, client_index)
    ours = make_router("vllm_dp", client_count=client_count, client_index=client_index)
    loads = [EngineLoad() for _ in range(num_engines)]
    in_flight: dict[str, int] = {}
    chosen: Counter[int] = Counter()
    num_charged = 0
    for _ in range(1500):
        what = rng.random()
        if what < 0.55:
            request_id = f"r{next(numbers)}"
            engine = ours.route(RoutedCall(request_id, request_id, 10), loads, time_s=0.0)
            assert engine == theirs.route(request_id)
            in_flight[request_id] = engine
            loads[engine].num_in_flight += 1
            chosen[engine] += 1
        elif what < 0.9 and in_flight:
            request_id = rng.choice(sorted(in_flight))
            loads[in_flight.pop(request_id)].num_in_flight -= 1
            theirs.finish(request_id)
        else:
            counts = [[rng.choice([0, 0, 1, 3, 9]), rng.randint(0, 12), rng.random()] for _ in loads]
            for load, read in zip(loads, counts, strict=True):
                load.num_requests_waiting, load.num_requests_running = int(read[0]), int(read[1])
                load.kv_cache_usage_frac = float(read[2])
                num_charged += read[0] > 0 and read[2] > 0.5
            ours.observe(loads)
            theirs.observe(counts)
    assert len(chosen) == num_engines
    assert num_charged > 50
