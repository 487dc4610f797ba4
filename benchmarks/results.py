"""`make results`: run the commands behind the pages' tables again, and say which numbers changed.

Each result is a JSON file in `examples/results`: what its command prints, cut to six digits; of static caps
but the best one, only the makespan. The tables are then written from these files (`benchmarks.tables`).
`tests/test_readme.py` holds the pages to the files, and what is cheap of the files to new runs.

`make results ONLY="react hurts/host_cache"` runs these only. Everything takes 80 minutes on two cores after
`make fast`, half of them for the studies. What needs vLLM or `concur validate` has a command of its own, on
its page.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.result_files import RESULTS, ROOT, Result, is_shown, read, write
from benchmarks.tables import FAMILIES, HEADLINES, HURTS, PAGES, fill
from concur.sim.lab.held_out import START, TUNED, check
from concur.sim.record.record import RunRecord
from concur.sim.runs.intervals import metric_interval
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.scenario import load_scenario
from concur.sim.scenario.sections import ControllerConfig
from concur.sim.scenario.toml_files import read_toml
from concur.sim.world.simulate import simulate

REACT: Final = (
    "concur compare examples/react.toml --set 'compare.seeds=[0,1,2,3,4]' --controllers none request_cap=64 "
    "agent_cap=80..128..8 concur hybrid twin"
)
COMPARISONS: Final = {
    "react": REACT,
    "claude_code": "concur compare examples/claude_code.toml",
    "tau_airline": "concur compare examples/tau_airline.toml",
    **{f"hurts/{name}": f"concur compare examples/hurts/{name}.toml" for name in HURTS if name != "react"},
    **{f"families/{name}": f"concur compare examples/families/{name}.toml" for name in FAMILIES},
}
ENGINES: Final = (
    "concur compare examples/tau_airline.toml --engines vllm,sglang,sglang+schedule_policy=lpm "
    "--controllers none agent_cap=24..48..8 concur hybrid twin"
)
JUDGEMENTS: Final = {
    "judge": "concur judge examples/judge/*.toml --out runs/judge --controllers none concur ledger turnover "
    "vegas gradient hybrid twin",
    "judge_orders": "concur judge examples/judge/*.toml --out runs/judge_orders --seeds 12..15",
    "judge_arrivals": "concur judge examples/judge/held_back/*.toml --out runs/judge_arrivals",
}
STUDIES: Final = {
    "advise": "benchmarks.advise",
    "offload": "benchmarks.offload_study",
    "trees": "benchmarks.tree_knee",
    "fleets": "benchmarks.fleets",
    "fleet_waits": "benchmarks.fleet_waits",
    "fleet_twin": "benchmarks.fleet_twin",
    "twin_fidelity": "benchmarks.twin_fidelity",
    "twin_ablations": "benchmarks.twin_ablations",
}
"""Results of a module of their own, which writes them, draws their figure, and takes minutes."""
ELSEWHERE: Final = {"releases": "make test-releases", "tier_matrix": "python -m benchmarks.tier_matrix"}
"""Results that need vLLM, and so another environment."""
SWEEP: Final = "concur sweep examples/sweep.toml --out runs/sweep"
TUNE: Final = "concur tune examples/react.toml --controllers concur --out runs/tune"
_ON_A_CLOCK: Final = {"cpu_s"}
_TUNING_SEEDS: Final = (0, 1)
_HELD_OUT_SEEDS: Final = (100, 101, 102, 103, 104)


def compare(command: str) -> Result:
    """Return what a `concur compare` prints as JSON, cut."""
    return _cut(json.loads(_run([*shlex.split(command)[1:], "--json"])))


def engines() -> Result:
    """Return what the comparison over engines prints as JSON: engine -> policy -> metrics, cut."""
    found = json.loads(_run([*shlex.split(ENGINES)[1:], "--json"]))
    return {name: _cut(own) for name, own in found.items()}


def sweep() -> Result:
    """Return mean makespans of the sweep: "AGENTS agents, BLOCKS blocks" -> policy -> seconds."""
    with tempfile.TemporaryDirectory() as folder:
        _run([*shlex.split(SWEEP)[1:-1], folder])
        runs = pd.read_parquet(Path(folder, "runs.parquet"))
    result: Result = {}
    for (agents, blocks, policy), own in runs.groupby(
        ["workload.num_agents", "engine.num_gpu_blocks", "policy"], sort=False
    ):
        by_policy = result.setdefault(f"{agents} agents, {blocks} blocks", {})
        by_policy[str(policy)] = _digits(own["makespan_s"].mean())
    return {"num_runs": len(runs)} | result


def judgement(command: str) -> Result:
    """Return the summary of a `concur judge`, and of each case the best cap and the ratios to it."""
    words = [
        str(path) if "*" in word else word
        for word in shlex.split(command)[1:]
        for path in (sorted(ROOT.glob(word)) if "*" in word else [word])
    ]
    with tempfile.TemporaryDirectory() as folder:
        words[words.index("--out") + 1] = folder
        found = json.loads(_run([*words, "--json"]))
    cases = {name: {"best_cap": case["best_cap"], **case["ratios"]} for name, case in found["cases"].items()}
    return _cut_digits({"summary": found["summary"], "cases": cases})


def tuned() -> Result:
    """Return the tuned law, and start, law and caps on the held-out seeds with their gains."""
    with tempfile.TemporaryDirectory() as folder:
        _run([*shlex.split(TUNE)[1:-1], folder])
        law = ControllerConfig.model_validate(read_toml(Path(folder, "best.toml"), what="law")["controller"])
    scenario = load_scenario(ROOT / "examples" / "react.toml")
    (start,) = parse_controllers(law.kind, scenario.controller)
    found = check(
        scenario,
        start=start,
        tuned=law,
        tuning_seeds=_TUNING_SEEDS,
        seeds=_HELD_OUT_SEEDS,
        objective="makespan_s",
        is_higher_better=False,
    )
    baselines = {"start": START, "deployed_cap": found.deployed_cap, "hindsight_cap": found.hindsight_cap}
    rows = {"start": START, "tuned": TUNED} | baselines
    result: Result = {
        "law": law.parameters,
        **{name: rows[name] for name in ("deployed_cap", "hindsight_cap")},
    }
    for name, key in rows.items():
        makespan = metric_interval(found.runs[key], "makespan_s")
        gains = {
            f"over_{base}": found.gain(key, other, "makespan_s", is_higher_better=False)
            for base, other in baselines.items()
        }
        intervals = {"makespan_s": makespan} | gains
        result[f"of_{name}"] = {what: each.to_json() for what, each in intervals.items() if each is not None}
    return _cut_digits(result)


def study(name: str) -> Result:
    """Run the module of a study; return what it has written."""
    subprocess.run([sys.executable, "-W", "ignore", "-m", STUDIES[name]], cwd=ROOT, check=True)
    return read(name)


def domain() -> Result:
    """Return how far the headline runs (seed 0) leave the domain of their step-time profile."""
    result: Result = {}
    for name in HEADLINES:
        scenario = load_scenario(ROOT / "examples" / f"{name}.toml")
        rows = result[name] = {}
        for policy in [each for each in read(name) if is_shown(each, read(name))]:
            (controller,) = parse_controllers(policy, scenario.controller)
            rows[policy] = beyond(simulate(scenario.with_controller(controller)))
    return result


def beyond(run: RunRecord) -> Result:
    """Return a run's steps, and how many are beyond the profile's domain."""
    text = " ".join(run.run["warnings"])
    outside = re.search(r"about (\d+) steps were beyond", text)
    return {
        "num_steps": run.metrics["num_engine_steps"],
        "num_beyond": int(outside[1]) if outside else 0,
    }


def makers() -> dict[str, Callable[[], Result]]:
    """Return what makes each result, in the order of one run."""
    comparisons = {name: lambda command=command: compare(command) for name, command in COMPARISONS.items()}
    judgements = {name: lambda command=command: judgement(command) for name, command in JUDGEMENTS.items()}
    studies = {name: lambda name=name: study(name) for name in STUDIES}
    others = {"engines": engines, "sweep": sweep, "tune": tuned, "domain": domain}
    return {**judgements, **comparisons, **others, **studies}


def main() -> None:
    """Make all results, or those named, again; write what changed, and the tables."""
    known = makers()
    unknown = set(sys.argv[1:]) - set(known)
    if unknown:
        sys.exit(f"no result is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in sys.argv[1:] or known:
        old = read(name) if (RESULTS / f"{name}.json").exists() else {}
        new = known[name]()
        changes = list(differences(old, new)) if old else ["new"]
        print("\n  ".join([f"{name}: {len(changes)} changes", *changes]), flush=True)
        write(name, new if changes else old)  # a study has written its own, with the times of this run
    for page in PAGES:
        path = ROOT / page
        path.write_text(fill(path.read_text(encoding="utf-8"), page), encoding="utf-8")


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Yield one line per number that is another one, or is in one of the two only; a clock's are none."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            if key in _ON_A_CLOCK:
                continue
            yield from differences(old.get(key), new.get(key), f"{where} {key}".strip())
    elif old != new:
        yield f"{where}: {old} -> {new}"


def _run(arguments: list[str]) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "concur.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _cut(result: Result) -> Result:
    shown = {
        policy: row if is_shown(policy, result) else {"makespan_s": row["makespan_s"]}
        for policy, row in result.items()
    }
    for row in shown.values():
        row.get("phases", {}).pop("rule", None)
        row.pop("wall_clock_s", None)
    return _cut_digits(shown)


def _cut_digits(result: Mapping[str, Any]) -> Result:
    def cut(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _cut_digits(value)
        return _digits(value) if isinstance(value, float) else value

    return {key: cut(value) for key, value in result.items()}


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


if __name__ == "__main__":
    main()
