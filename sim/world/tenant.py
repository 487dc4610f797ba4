"""Someone else on an engine: calls that pass no gate and no agent makes.

What a background tenant holds, the agents cannot have: their pool shrinks while it is there. Its calls are
not in the record's tables, but the engine's gauges and counters include them, as a live engine's do.
"""

from collections.abc import Generator
from typing import Final

import simpy

from concur.sim.engine.request import Request
from concur.sim.scenario.sections import TenantConfig
from concur.sim.world.clock import Clock
from concur.sim.world.engine import Engine
from concur.sim.world.histories import FleetHistories

_RETRY_S: Final = 1.0


class Tenant:
    """Keep `num_requests` calls going at an engine; `first_index` is the first index that nobody else has.

    While its engine is down it waits, and begins again a second after a call was aborted.
    """

    def __init__(
        self,
        env: Clock,
        engine: Engine,
        histories: FleetHistories,
        config: TenantConfig,
        *,
        engine_index: int,
        first_index: int,
    ) -> None:
        self._engine_index = engine_index
        self._env = env
        self._histories = histories
        self._engine = engine
        self._config = config
        for number in range(config.num_requests):
            env.process(self._calling(first_index + number))

    def _calling(self, index: int) -> Generator[simpy.Event, object, None]:
        env, config = self._env, self._config
        yield env.timeout(config.start_s)
        call_index = 0
        while env.now < config.end_s:
            is_answered = yield self._engine.submit(self._request(index, call_index))
            call_index += 1
            if not is_answered:
                yield env.timeout(_RETRY_S)

    def _request(self, index: int, call_index: int) -> Request:
        config = self._config
        nothing = self._histories.begin(())
        written = self._histories.call(nothing, kept_tokens=0, context_tokens=config.context_tokens)
        return Request(
            request_id=f"tenant-{index}/{call_index}",
            agent_index=index,
            call_index=call_index,
            num_prompt_tokens=config.prompt_tokens,
            max_tokens=config.output_tokens,
            history=self._histories.on(written, self._engine_index),
            known_tokens=0,
            arrival_s=self._env.now,
        )
