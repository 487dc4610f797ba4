"""How long a large fleet takes to simulate: `python -m benchmarks.fleet_scale [ENGINES AGENTS]`.

64 engines and 20,000 ReAct agents by default, sessions hashed, a window for each engine; on one core.
"""

import sys
import time
from typing import Final

from concur.sim.scenario.scenario import parse_scenario
from concur.sim.world.simulate import simulate

CAP: Final = 40
"""Agents an engine: below the knee of the pool, so that steps are many and long contexts stay."""


def main() -> None:
    """Simulate, and say how fast."""
    engines, agents = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (64, 20_000)
    scenario = parse_scenario(
        {
            "workload": {"generator": "react", "num_agents": agents},
            "engine": {"num_gpu_blocks": 20_001, "max_model_len": 16_384},
            "controller": {"kind": "agent_cap", "cap": CAP},
            "fleet": {"num_engines": engines, "routing": "session", "gate": "per_engine"},
            "record": {"timeline_interval_s": 10.0},
        }
    )
    began_s = time.perf_counter()
    metrics = simulate(scenario).metrics
    took_s = time.perf_counter() - began_s
    print(
        f"{engines} engines, {agents:,} agents: {took_s:.0f} s for {metrics['makespan_s']:.0f} simulated; "
        f"{metrics['num_requests']:,} calls, {metrics['num_engine_steps']:,} steps, "
        f"{1e6 * took_s / metrics['num_engine_steps']:.0f} us a step, hit rate {metrics['hit_rate']:.3f}"
    )


if __name__ == "__main__":
    main()
