"""The head of every page: what was run, and where, and under it what came of it."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from concur.errors import ConcurError
from concur.sim.record.provenance import git_commit, short_commit, versions
from concur.sim.record.record import RunRecord
from concur.sim.scenario.scenario import Scenario
from concur.sim.step_time.config import profile_hash
from concur.sim.step_time.profile import StepTimeProfile, load_profile
from concur.sim.workload.spec import Workload

_MOST_NAMED: Final = 4  # of one kind, then the others are counted


def facts(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return what was run and where, of all records together; what is not known is left out."""
    return facts_of([record.run for record in records])


def facts_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the same of runs as `run.json` has them, whose records are not at hand.

    Of each run are asked `scenario`, `workload`, `metrics` (`num_agents`), `profile_hash`, `seed` and
    `git_commit`; `world` and `versions` where it has them.
    """
    machines = list(map(_machine, runs))
    seeds = sorted({run["seed"] for run in runs})
    numbers = sorted({run["metrics"]["num_agents"] for run in runs})
    found = {
        **merged_facts(machines),
        "engine": _named(map(_engine, runs)),
        "pool": _named(_pool(run["scenario"]["engine"]) for run in runs),
        "agents": f"{_numbers(numbers)} of {_named(str(run['workload']['source']) for run in runs)}",
        "seed" if len(seeds) == 1 else "seeds": _named(map(str, seeds)),
        "world": _named(_world(run) for run in runs),
        "commit": _named(short_commit(run.get("git_commit")) for run in runs),
    }
    return {name: text for name, text in found.items() if text}


def merged_facts(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return facts of several settings together: under each name what differs."""
    names = dict.fromkeys(name for each in found for name in each)
    return {name: _named(each.get(name, "") for each in found) for name in names}


def planned(scenario: Scenario, workloads: Mapping[int, Workload]) -> list[dict[str, Any]]:
    """Return what `facts_of` asks, of one scenario on workloads (by seed) that this very code simulates."""
    common = {
        "scenario": scenario.model_dump(mode="json"),
        "profile_hash": profile_hash(scenario.step_time),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    return [
        {
            **common,
            "seed": seed,
            "workload": {"source": workload.source},
            "metrics": {"num_agents": len(workload.agents)},
        }
        for seed, workload in workloads.items()
    ]


def profile_facts(profile: StepTimeProfile) -> dict[str, str]:
    """Return model, GPU and name of a profile, as far as it says."""
    made = profile.provenance
    device, num_gpus = made.get("device"), made.get("tensor_parallel_size") or 1
    found = {
        "model": str(made.get("model_name") or ""),
        "GPU": f"{num_gpus} x {device}" if device else "",
        "profile": profile.name,
    }
    return {name: text for name, text in found.items() if text}


def head_html(found: Mapping[str, str], *told: str) -> str:
    """Return the facts as a list, and below them what came of the runs: the head of a page."""
    rows = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in found.items()
    )
    verdicts = (f'<p class="verdict">{html.escape(each)}</p>' for each in told)
    return "\n".join([f'<dl class="facts">{"".join(rows)}</dl>', *verdicts])


def _numbers(numbers: Sequence[int]) -> str:
    """Return different numbers in order, the first and the last if they are many."""
    if len(numbers) > _MOST_NAMED:
        return f"{numbers[0]:,} to {numbers[-1]:,}"
    return ", ".join(f"{number:,}" for number in numbers)


def _named(texts: Iterable[str]) -> str:
    """Return different texts in one, and how many more there are."""
    different = [text for text in dict.fromkeys(texts) if text]
    others = len(different) - _MOST_NAMED
    return ", ".join(different[:_MOST_NAMED]) + (f" and {others} more" if others > 0 else "")


def _machine(run: Mapping[str, Any]) -> dict[str, str]:
    """Return model, GPU and profile, as far as the profile of the run is at hand."""
    name = run["scenario"]["step_time"].get("profile")
    if not name:
        return {"profile": "linear step times, not fitted"}
    try:
        profile = load_profile(name)
    except ConcurError:
        return {"profile": str(name)}
    if profile.sha256 != run.get("profile_hash"):
        return {"profile": str(name)}
    return profile_facts(profile)


def _world(run: Mapping[str, Any]) -> str:
    return str(run.get("world", "sim"))


def _engine(run: Mapping[str, Any]) -> str:
    """Return whose engine it is and of which release, and how many there are if there are several."""
    engine = run["scenario"]["engine"]
    kind = str(engine.get("kind", "vllm"))
    told = {"vllm": "vLLM", "sglang": "SGLang"}.get(kind, kind)
    release = engine.get("release") or (
        run.get("versions", {}).get("vllm_semantics") if kind == "vllm" else None
    )
    if release and _world(run) == "sim":
        told += f" {release}"
    fleet = run["scenario"].get("fleet") or {}
    num_engines = fleet.get("num_engines") or len(fleet.get("engines") or ()) or 1
    return told if num_engines == 1 else f"{num_engines} x {told}"


def _pool(engine: Mapping[str, Any]) -> str:
    blocks, size, groups = (engine.get(name) for name in ("num_gpu_blocks", "block_size", "kv_cache_groups"))
    if blocks and groups:  # what a block holds depends on the group that has it
        return f"{blocks:,} blocks for {len(groups)} groups of layers"
    if blocks and size:
        return f"{(blocks - 1) * size:,} tokens ({blocks:,} blocks of {size})"
    tokens = engine.get("max_total_num_tokens")
    return f"{tokens:,} tokens" if tokens else ""
