"""Where the knee is with sub-agents in the world and without them, and what that does to every law.

`python -m benchmarks.tree_knee` runs `examples/trees.toml` at several concurrencies, with its sub-agents and
with the sessions alone, and every law at the largest; three orders of the sessions each. It writes
`examples/results/trees.json` and draws `examples/trees.png`. A rate is that of the calls between minute 10
and 45, when the loop is full and nobody has stopped.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.result_files import ROOT, Result, mean, write
from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import mean_interval
from concur.sim.runs.parallel import run_tasks
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.scenario import load_scenario
from concur.sim.show.figures import png_bytes, style
from concur.sim.world.simulate import simulate

SCENARIO: Final = ROOT / "examples" / "trees.toml"
SESSIONS: Final = (4, 8, 12, 14, 16, 18, 20, 24, 32)
SEEDS: Final = (0, 1, 2)
WINDOW_S: Final = (600.0, 2700.0)
LAWS: Final = (
    "agent_cap=12,16,20,24,32",
    "concur",
    "ledger",
    "turnover",
    "vegas",
    "gradient",
    "hybrid",
    "twin",
)
WORLDS: Final = {"with sub-agents": "kept", "sessions alone": "left_out"}
COLOURS: Final = {"with sub-agents": "#0072B2", "sessions alone": "#999999"}


class Case(NamedTuple):
    """One run: which world, how many sessions at a time, under which policy, in which order."""

    world: str
    num_sessions: int
    policy: str
    seed: int


def cases() -> list[Case]:
    """Return all runs: every concurrency without control, and every policy at the largest."""
    scenario = load_scenario(SCENARIO)
    policies = [config.label for text in LAWS for config in parse_controllers(text, scenario.controller)]
    points = [(number, "none") for number in SESSIONS] + [(SESSIONS[-1], policy) for policy in policies]
    return [Case(world, *point, seed) for world in WORLDS for point in points for seed in SEEDS]


def run(case: Case) -> tuple[float, float]:
    """Return the output tokens per second and the hit rate within the window."""
    keys = {
        "workload.arrival.num_sessions": case.num_sessions,
        "workload.sub_agents": WORLDS[case.world],
        "seed": case.seed,
    }
    scenario = load_scenario(SCENARIO, [f"{key}={value}" for key, value in keys.items()])
    (controller,) = parse_controllers(case.policy, scenario.controller)
    return within(simulate(scenario.with_controller(controller)), *WINDOW_S)


def within(record: RunRecord, start_s: float, end_s: float) -> tuple[float, float]:
    """Return output tokens per second of calls that end in the window, and hits of those that begin in it."""
    calls = record.requests
    ended = calls[calls["finished_s"].between(start_s, end_s)]
    begun = calls[calls["scheduled_s"].between(start_s, end_s)]
    return (
        float(ended["output_tokens"].sum() / (end_s - start_s)),
        float(begun["cached_tokens"].sum() / begun["prompt_tokens"].sum()),
    )


def results() -> Result:
    """Run everything; return world -> point -> throughput and hit rate, each with its interval."""
    todo = cases()
    rows: dict[str, dict[str, list[tuple[float, float]]]] = {world: {} for world in WORLDS}
    for number, measured in run_tasks(run, todo):
        case = todo[number]
        point = f"{case.num_sessions} sessions, {case.policy}"
        rows[case.world].setdefault(point, []).append(measured)
    return {
        f"{world}: {point}": {
            "throughput_tokens_per_s": mean_interval([tokens for tokens, _ in measured]).to_json(),
            "hit_rate": mean_interval([hits for _, hits in measured]).to_json(),
        }
        for world, points in rows.items()
        for point, measured in points.items()
    }


def figure(result: Mapping[str, Result]) -> Figure:
    """Draw both curves without control, and every law at the largest concurrency."""
    drawn = Figure(figsize=(9.5, 3.4), layout="constrained")
    knee, hits, laws = drawn.subplots(1, 3, width_ratios=(1, 1, 1.2))
    for axes, metric, label in (
        (knee, "throughput_tokens_per_s", "output tokens per second"),
        (hits, "hit_rate", "hit rate"),
    ):
        for world in WORLDS:
            _draw_curve(axes, result, world, metric)
        axes.set_xlabel("sessions at a time, no control")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    drawn.legend(*knee.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _draw_laws(laws, result)
    return drawn


def _draw_curve(axes: Axes, result: Mapping[str, Result], world: str, metric: str) -> None:
    values = [result[f"{world}: {number} sessions, none"][metric] for number in SESSIONS]
    errors = [value["half_width"] or 0.0 for value in values]
    means = [mean(value) for value in values]
    axes.errorbar(
        SESSIONS, means, errors, marker="o", markersize=3, capsize=2, color=COLOURS[world], label=world
    )


def _draw_laws(axes: Axes, result: Mapping[str, Result]) -> None:
    """Draw the throughput under every law; of the static caps the best of each world."""
    labels = ["none", "best cap", *(law for law in LAWS if "=" not in law)]
    for offset, world in ((-0.2, "with sub-agents"), (0.2, "sessions alone")):
        values = [result[f"{world}: {point_of(result, world, label)}"] for label in labels]
        throughputs = [value["throughput_tokens_per_s"] for value in values]
        axes.barh(
            [number + offset for number in range(len(labels))],
            [mean(value) for value in throughputs],
            height=0.38,
            xerr=[value["half_width"] or 0.0 for value in throughputs],
            color=COLOURS[world],
            error_kw={"linewidth": 0.8},
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"output tokens per second, {SESSIONS[-1]} sessions")


def point_of(result: Mapping[str, Result], world: str, label: str) -> str:
    """Return the point of a law at the largest concurrency; "best cap" is the best static one."""
    start = f"{world}: {SESSIONS[-1]} sessions, "
    if label != "best cap":
        return f"{SESSIONS[-1]} sessions, {label}"
    caps = [key for key in result if key.startswith(f"{start}agent_cap")]
    best = max(caps, key=lambda key: mean(result[key]["throughput_tokens_per_s"]))
    return best.removeprefix(f"{world}: ")


def main() -> None:
    """Run, write and draw."""
    result = results()
    write("trees", result)
    with style():
        (ROOT / "examples" / "trees.png").write_bytes(png_bytes(figure(result)))
    for key, row in result.items():
        print(f"{key:50} {mean(row['throughput_tokens_per_s']):8.1f} tok/s  {mean(row['hit_rate']):.3f}")


if __name__ == "__main__":
    main()
