"""Is the advice right? `concur advise` on five traces and four machines, against every cap run.

`python -m benchmarks.advise` runs the command as a user would, with its CPU time, then every static cap (at
most 64 of them, evenly spaced) on the same orders of the agents, and writes `examples/results/advise.json`:
for each case the advice, the best cap of the full sweep, and by how much the makespan of what is recommended,
and of the caps at both ends of the recommended window, is longer.

An hour on two quiet cores. Each case is written when it is done; `python -m benchmarks.advise weka` runs
again those whose name begins so and leaves the others as they are.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.result_files import ROOT, Result, read, write
from concur.sim.runs.compare import Runs, by_policy
from concur.sim.runs.intervals import metric_interval
from concur.validate.advise import scenario_of_trace, shipped_profile

TRACES: Final[Mapping[str, tuple[str, ...]]] = {
    "tau_airline": (),
    "react_hotpotqa": (),
    "lmcache_miniswe": ("engine.num_gpu_blocks=5001",),
    "sweagent_demos": ("engine.num_gpu_blocks=3001",),
    "weka": ("workload.max_context_tokens=131072", "workload.num_agents=96"),
}
"""Trace -> what is set. Of two there are some 20 agents, which no machine's whole pool is too small for."""
SEEDS: Final = (0, 1)
_MOST_CAPS: Final = 64


class Machine(NamedTuple):
    """A machine as the command names it."""

    model: str
    gpu: str
    tp: int


MACHINES: Final = (
    Machine("qwen3-32b", "h100", 2),
    Machine("qwen3-8b", "l40s", 1),
    Machine("qwen3-32b", "h200", 1),
    Machine("llama-3.1-70b", "h100", 4),
)


def results(begins: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each case whose name begins so, and what was found."""
    for trace, keys in TRACES.items():
        for machine in MACHINES:
            name = f"{trace} on {machine.gpu} {machine.model} tp{machine.tp}"
            if name.startswith(begins):
                yield name, case(trace, machine, keys)


def case(trace: str, machine: Machine, keys: Sequence[str]) -> dict[str, Any]:
    """Run the command and the full sweep of one case."""
    path = ROOT / "examples" / "traces" / f"{trace}.jsonl.gz"
    flags = ["--model", machine.model, "--gpu", machine.gpu, "--tp", str(machine.tp)]
    flags += [word for key in keys for word in ("--set", key)]
    began_s = _children_s()
    command = [sys.executable, "-W", "ignore", "-m", "concur.cli", "advise", str(path), *flags, "--json"]
    advice = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    cpu_s = _children_s() - began_s
    makespans_s = sweep(trace, machine, keys)
    best = min(makespans_s, key=lambda cap: makespans_s[cap])
    low, high = advice["window"]
    recommended_s = {
        each["policy"]: each["makespan_s"]["mean"]
        for each in (advice["none"], *advice["laws"], *advice["caps"].values())
    }[advice["recommended"]]
    return {
        "num_agents": advice["demand"]["num_agents"],
        "demand_over_pool": advice["demand"]["peak_tokens"] / advice["demand"]["pool_tokens"],
        "recommended": advice["recommended"],
        "window": [low, high],
        "speed_up": advice["speed_up"],
        "best_cap": best,
        "recommended_over_best": recommended_s / makespans_s[best],
        "window_over_best": max(
            advice["caps"][str(cap)]["makespan_s"]["mean"] / makespans_s[best] for cap in (low, high)
        ),
        "cpu_s": cpu_s,
    }


def _children_s() -> float:
    """Return the CPU time of the commands that have ended, and of their own children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep(trace: str, machine: Machine, keys: Sequence[str]) -> dict[int, float]:
    """Return the mean makespan of every cap, or of 64 of them."""
    path = ROOT / "examples" / "traces" / f"{trace}.jsonl.gz"
    scenario = scenario_of_trace(path, shipped_profile(*machine), {}, keys)
    runs = Runs(scenario, SEEDS)
    num_agents = max(len(workload.agents) for workload in runs.workloads.values())
    step = max(1, -(-num_agents // _MOST_CAPS))
    caps = range(num_agents % step or step, num_agents + 1, step)
    configs = scenario.policies(f"agent_cap={','.join(map(str, caps))}")
    for _ in runs.run(configs):
        pass
    found = by_policy(runs.records)
    means = {label: metric_interval(own, "makespan_s") for label, own in found.items()}
    return {int(label.partition("=")[2]): mean.mean for label, mean in means.items() if mean is not None}


def main() -> None:
    """Run everything, or the cases named; write each as it comes and print its line."""
    begins = tuple(sys.argv[1:])
    result: Result = read("advise") if begins else {}
    for name, row in results(begins or ("",)):
        result[name] = row
        write("advise", result)
        print(
            f"{name}: {row['recommended']}, window {row['window']}, best cap {row['best_cap']}, "
            f"{row['recommended_over_best']:.3f} and {row['window_over_best']:.3f} of it, "
            f"{row['cpu_s']:.0f} s of CPU",
            flush=True,
        )


if __name__ == "__main__":
    main()
