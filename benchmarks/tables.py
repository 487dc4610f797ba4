"""The tables of results of README and documentation, written from the committed results.

A table is found by the comment `<!-- table NAME -->` on the line before it, and replaced as a whole.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from benchmarks.fleet_death import RESULT as FLEET_DEATH
from benchmarks.fleets import ARMS, SESSIONS
from benchmarks.fleets import PUBLISHED as PUBLISHED_FLEETS
from benchmarks.offload_study import LAWS as OFFLOAD_LAWS
from benchmarks.offload_study import TIERS, rows_of
from benchmarks.releases import KINDS as RELEASE_KINDS
from benchmarks.result_files import ROOT, best_cap, mean, read
from concur.sim.engine.config import RELEASES
from concur.sim.runs.policies import best_static_cap
from concur.sim.scenario.toml_files import read_toml
from concur.sim.step_time.profile import load_profile

PAGES: Final = (
    "README.md",
    "docs/pages/concepts/exact.md",
    "docs/pages/concepts/step-times.md",
    "docs/pages/results/advice.md",
    "docs/pages/results/batches.md",
    "docs/pages/results/engines.md",
    "docs/pages/results/families.md",
    "docs/pages/results/fleets.md",
    "docs/pages/results/hurts.md",
    "docs/pages/results/judge.md",
    "docs/pages/results/live.md",
    "docs/pages/results/offload.md",
    "docs/pages/results/paper.md",
    "docs/pages/results/published.md",
    "docs/pages/results/sweep.md",
    "docs/pages/results/tuning.md",
    "examples/families/README.md",
)
_TABLE: Final = re.compile(r"(<!-- table (\w+) -->\n)((?:\|.*\n)*)")
_STEADY: Final = ("react", "coding", "tools", "mix", "poisson")
_CHANGING: Final = ("drift_growth", "drift_surge", "drift_pool", "recovery")
FAMILIES: Final = (*_STEADY, *_CHANGING)
HURTS: Final = {
    "host_cache": "a host cache of 2M tokens",
    "ample_pool": "a pool four times as large",
    "long_waits": "tools that take 20 s",
    "short_histories": "short histories (HotpotQA, a real trace)",
    "long_answers": "answers of 800 tokens",
    "react": "for comparison: the batch above",
}
"""The rows of "When it hurts": result -> what it is."""
HEADLINES: Final = {
    "react": ("256 ReAct agents", "h100-sxm_qwen3-32b_tp2"),
    "claude_code": ("96 Claude Code sessions", "h100-sxm_qwen3-32b_tp8"),
    "tau_airline": ("200 tau-bench agents", "h100-sxm_qwen3-32b_tp2"),
}
ENGINE_NAMES: Final = {
    "vllm": "vLLM 0.32",
    "sglang": "SGLang 0.5.23, `fcfs`",
    "sglang+schedule_policy=lpm": "SGLang 0.5.23, `lpm`",
}
_OTHERS: Final = ("ledger", "turnover", "vegas", "gradient")
_OURS: Final = ("hybrid", "twin")
LAWS: Final = ("concur", *_OTHERS, *_OURS)
SWEEP_ROWS: Final = {64: (6_001, 21_001), 128: (6_001, 16_001, 21_001), 192: (6_001, 21_001)}
"""Agents -> pools of the sweep that are shown."""

Rows = Iterable[Sequence[str]]


def fill(text: str, page: str) -> str:
    """Return a page with its tables as the committed results have them; without results a table stays.

    Links in tables are written from the root of the repository; on the page they lead from its own folder.
    """
    up = "../" * page.count("/")
    return _TABLE.sub(lambda found: found[1] + (made(found[2]).replace("](", f"]({up}") or found[3]), text)


def made(table: str) -> str:
    """Return a table from the committed results; empty where they are not there."""
    try:
        return _markdown(TABLES[table]())
    except FileNotFoundError:
        return ""


def _markdown(rows: Rows) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(
        f"|{'|'.join('---' if cell == '---' else f' {cell} ' for cell in line)}|\n" for line in lines
    )


def _interval(value: Mapping[str, Any], digits: int, *, scale: float = 1.0) -> str:
    numbers = [f"{scale * value['mean']:,.{digits}f}"]
    if value["half_width"] is not None:
        numbers.append(f"{scale * value['half_width']:,.{digits}f}")
    return " ± ".join(numbers)


def _percent(value: float | Mapping[str, Any], digits: int) -> str:
    return f"{100 * mean(value):.{digits}f} %"


def _names(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the policies of a headline table, and what they are called there."""
    cap, request_cap = best_cap(result), next(key for key in result if key.startswith("request_cap="))
    assert cap is not None
    return {
        "none": "no control",
        request_cap: f"request cap {request_cap.partition('=')[2]}",
        cap: f"best static agent cap ({cap.partition('=')[2]})",
        "concur": "CONCUR, the paper's constants",
        "hybrid": "hybrid, ours, no tuning",
        "twin": "twin, ours, no tuning",
    }


def front() -> Rows:
    """Return the README's one table: speed-ups over no control, of batches and over all cases."""
    yield "batch", "no control", "best static cap", "concur", *_OURS
    for name, (batch, _) in HEADLINES.items():
        result = read(name)
        yield _speed_ups(batch, result)
    yield _speed_ups("the first again, with a host cache that holds it", read("hurts/host_cache"))
    summary = read("judge")["summary"]
    none = summary["none"]["geometric_mean"]
    yield (
        f"{summary['none']['num_cases']} cases, geometric mean",
        "1",
        f"{none:.2f}",
        *(f"{none / summary[law]['geometric_mean']:.2f}" for law in ("concur", *_OURS)),
    )


def _speed_ups(batch: str, result: Mapping[str, Any]) -> Sequence[str]:
    cap = best_cap(result)
    assert cap is not None
    makespan_s = mean(result["none"]["makespan_s"])
    return (
        batch,
        f"{makespan_s:,.0f} s",
        f"{_bare_speed_up(result, cap)} (cap {cap.partition('=')[2]})",
        *(_bare_speed_up(result, law) for law in ("concur", *_OURS)),
    )


def _bare_speed_up(result: Mapping[str, Any], policy: str) -> str:
    return _speed_up(result, policy).partition(" ")[0]


def react() -> Rows:
    """Return the headline table: means over seeds."""
    result = read("react")
    yield "policy", "makespan (s)", "speed-up", "hit rate", "time in recompute"
    for policy, name in _names(result).items():
        row = result[policy]
        yield (
            name,
            _interval(row["makespan_s"], 0),
            "1" if policy == "none" else _interval(row["speed_up"], 2),
            _percent(row["hit_rate"], 1),
            _percent(row["recompute_time_fraction"], 0),
        )


def _single(name: str) -> Rows:
    """Return a headline table of one run per policy, with hit rates by phase."""
    result = read(name)
    yield "policy", "makespan (s)", "speed-up", "hit rate: warm-up, middle, cool-down", "time in recompute"
    for policy, text in _names(result).items():
        row = result[policy]
        speed_up = result["none"]["makespan_s"] / row["makespan_s"]
        yield (
            text,
            f"{row['makespan_s']:,.0f}",
            "1" if policy == "none" else f"{speed_up:.2f}",
            _phases(row, is_bold=policy == "none"),
            _percent(row["recompute_time_fraction"], 0),
        )


def engines() -> Rows:
    """Return makespan, speed-up over no control and hit rate of the same agents on each engine."""
    result = read("engines")
    names = {"none": "no control", "agent_cap": "best static agent cap", "concur": "CONCUR"}
    yield "policy", *ENGINE_NAMES.values()
    for policy in ("none", "agent_cap", "concur", *_OURS):
        cells = [_on_engine(result[engine], policy) for engine in ENGINE_NAMES]
        yield names.get(policy, policy), *cells


def _on_engine(result: Mapping[str, Any], policy: str) -> str:
    """Return one policy's cell; of static caps the best, with its number."""
    cap = best_cap(result) if policy == "agent_cap" else None
    row = result[cap or policy]
    which = f" (cap {cap.partition('=')[2]})" if cap else ""
    speed_up = result["none"]["makespan_s"] / row["makespan_s"]
    told = f"{row['makespan_s']:,.0f} s{which}"
    return f"{told}, {'' if policy == 'none' else f'{speed_up:.2f}x, '}{_percent(row['hit_rate'], 1)}"


def _phases(row: Mapping[str, Any], *, is_bold: bool) -> str:
    rates = [row["phases"][phase]["hit_rate"] for phase in ("warm_up", "middle", "cool_down")]
    if rates[1] is None:
        return f"{_percent(row['hit_rate'], 1)} (fits throughout)"
    warm_up, middle, cool_down = ("-" if rate is None else _percent(rate, 1) for rate in rates)
    return f"{warm_up}, {f'**{middle}**' if is_bold else middle}, {cool_down}"


def domain() -> Rows:
    """Return the profile of each headline table, its errors, and how far the runs leave its domain."""
    result = read("domain")
    yield "batch", "profile", "held-out error: median, p95, worst", "steps beyond the fit"
    for name, (batch, profile) in HEADLINES.items():
        error = load_profile(profile).held_out["all"]
        far = {policy: row for policy, row in result[name].items() if row["num_beyond"]}
        shares = [f"{_short(policy)} {_share(row)}" for policy, row in far.items()]
        rest = ["others none" if far else "none"] if len(far) < len(result[name]) else []
        errors = (error.median_ape, error.p95_ape, error.worst_ape)
        yield (
            batch,
            f"`{profile}`",
            ", ".join("-" if each is None else _percent(each, 1) for each in errors),
            ", ".join([*shares, *rest]),
        )


def _short(policy: str) -> str:
    kind = policy.partition("=")[0]
    return {"none": "no control", "agent_cap": "best cap"}.get(kind, kind.replace("_", " "))


def _share(row: Mapping[str, Any]) -> str:
    share = row["num_beyond"] / row["num_steps"]
    return _percent(share, 0 if share > 0.01 else 1)


def judged(name: str) -> Rows:
    """Return what `concur judge` says of every law over all of its cases."""
    yield (
        *("policy", "makespan over the best static cap's, geometric mean", "worst case", "within 2 %"),
        "worst against no control, where that is best",
    )
    for policy, row in read(name)["summary"].items():
        low, high = row["interval"]
        mark = "**" if policy == "twin" else ""
        yield (
            "no control" if policy == "none" else policy,
            f"{mark}{row['geometric_mean']:.3f}{mark} ({low:.3f} to {high:.3f})",
            f"{row['worst']:.2f}",
            f"{row['num_close']} of {row['num_cases']}",
            f"{row['worst_left_alone']:.2f}",
        )


def hurts() -> Rows:
    """Return speed-ups over no control where admission control does not pay, and where it does."""
    yield (
        *("what is different", "no control (s)", "of it in recompute", "best static cap", "CONCUR"),
        *("ledger", *_OURS),
    )
    for name, text in HURTS.items():
        result = read("families/react" if name == "react" else f"hurts/{name}")
        link = f"[{text}](examples/{'families' if name == 'react' else 'hurts'}/{name}.toml)"
        cap = best_cap(result)
        assert cap is not None
        none = result["none"]
        makespan = none["makespan_s"]
        yield (
            link,
            f"{makespan:,.0f}" if isinstance(makespan, float) else _interval(makespan, 0),
            _percent(none["recompute_time_fraction"], 1),
            f"{_speed_up(result, cap)} ({cap.partition('=')[2]})",
            *(_speed_up(result, law) for law in ("concur", "ledger", *_OURS)),
        )


def offload() -> Rows:
    """Return makespans over those without control, tier by tier, and what none recomputes and reloads."""
    result = read("offload")
    yield (
        "tier",
        "no control (s)",
        "of it in recompute",
        *(law for law in OFFLOAD_LAWS if law != "none"),
        "best cap",
    )
    for tier in TIERS:
        rows = rows_of(result, tier)
        none = rows.pop("none")
        best = rows.pop("best cap")
        yield (
            tier,
            _interval(none["makespan_s"], 1),
            _percent(none["recompute_time_fraction"], 1),
            *(_interval(row["ratio"], 2) for row in rows.values()),
            f"{_interval(best['ratio'], 2)} ({best['policy'].partition('=')[2]})",
        )


def releases() -> Rows:
    """Return what was compared of each release of vLLM, kind by kind; a dash where nothing was."""
    result = read("releases")
    yield ("vLLM", *RELEASE_KINDS)
    for release in RELEASES:
        rows = [result.get(f"{release}: {kind}") for kind in RELEASE_KINDS]
        versions = {row["vllm_version"] for row in rows if row is not None}
        if versions:
            yield (*versions, *map(_compared, rows))


def _compared(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    verdict = "" if row["identical"] else "**differs**: "
    return f"{verdict}{row['num_worlds']} worlds, {row['num_steps']:,} steps"


def tier_matrix() -> Rows:
    """Return what was compared with an offload tier, trace by trace: sums over its worlds."""
    yield ("trace", "agents", "worlds", "identical", "steps", "loads", "stores", "flushes", "preemptions")
    counts = ("num_agents", "num_worlds", "num_identical", "num_steps", "num_loads", "num_stores")
    for name, row in read("tier_matrix").items():
        yield (name, *(f"{row[count]:,}" for count in (*counts, "num_flushes", "num_preemptions")))


def advice() -> Rows:
    """Return what was advised for each trace and machine, and how far it is from the best of all caps."""
    yield (
        *("agents on", "demand over pool", "advised", "window", "best of all caps"),
        *("the advised policy's makespan over its", "the window's worse end", "CPU (s)"),
    )
    for case, row in read("advise").items():
        low, high = row["window"]
        yield (
            case.replace(" on ", ", "),
            f"{row['demand_over_pool']:.2f}",
            row["recommended"].replace("none", "no control").replace("agent_cap=", "a cap of "),
            str(low) if low == high else f"{low} to {high}",
            str(row["best_cap"]),
            f"{row['recommended_over_best']:.3f}",
            f"{row['window_over_best']:.3f}",
            f"{row['cpu_s']:.0f}",
        )


def fleets() -> Rows:
    """Return tokens per second and hit rate of each arm over the sessions at a time."""
    result = read("fleets")
    yield "sessions at a time", *(arm.replace("_", " ") for arm in ARMS)
    for number in SESSIONS:
        rows = [result[f"{arm}, {number} sessions"] for arm in ARMS]
        yield str(number), *(f"{row['tokens_per_s']:,.0f}, {row['hit_rate']:.3f}" for row in rows)


def fleet_shapes() -> Rows:
    """Return what was published of fleets, and whether the simulation shows it."""
    yield "published", "here"
    for shape, holds in read("fleets")["shapes"].items():
        yield shape, "yes" if holds else "no"


def fleet_twin() -> Rows:
    """Return makespans and hit rates of one plan for a fleet, of its rivals, and of the best caps."""
    result = read("fleet_twin")
    arms = list(next(iter(result.values())))
    yield "makespan (s), hit rate", *result
    for arm in arms:
        yield (
            f"**{arm}**" if arm.startswith("fleet_twin") else arm,
            *(
                f"{_interval(rows[arm]['makespan_s'], 1)}, {rows[arm]['hit_rate']['mean']:.3f}"
                for rows in result.values()
            ),
        )


def fleet_waits() -> Rows:
    """Return what shorter waits of tools do to the default router, beside what was published."""
    yield (
        "sessions at a time",
        "longest wait",
        "tokens per second",
        "published",
        "hit rate",
        "calls a session",
    )
    published = read_toml(PUBLISHED_FLEETS, what="published numbers")["four_replicas"]
    of = dict(zip(published["sessions"], published["tokens_per_s"]["default"], strict=True))
    for point, row in read("fleet_waits").items():
        sessions, _, rest = point.partition(" sessions, ")
        told = of[int(sessions)]
        error = row["tokens_per_s"] / told - 1
        yield (
            sessions,
            rest,
            f"{row['tokens_per_s']:,} ({100 * error:+.0f} %)",
            f"{told:,}",
            f"{row['hit_rate']:.3f}",
            f"{row['calls_per_session']:.2f}",
        )


def fleet_live() -> Rows:
    """Return what became of the agents of a fleet whose second server was killed, in both worlds."""
    result = json.loads(FLEET_DEATH.read_text(encoding="utf-8"))
    live, simulated = result["live"], result["simulated"]
    yield "", "live", "simulated"
    for name, text in (
        ("agents", "agents that came to their end"),
        ("calls", "calls answered"),
        ("calls_by_engine", "of them by the server that lived, and by the one that died"),
        ("prompt_tokens", "prompt tokens"),
        ("output_tokens", "output tokens"),
        ("moves", "attempts on another server than the one before"),
        ("moved_agents", "numbers of the agents that were answered by both"),
        ("hit_rate", "hit rate"),
        ("at_gates_in_the_end", "slots held at the end"),
    ):
        yield text, *(_told(world[name]) for world in (live, simulated))


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f} %"


def _speed_up(result: Mapping[str, Any], policy: str) -> str:
    row = result[policy]
    if "speed_up" in row:
        return _interval(row["speed_up"], 2)
    return f"{result['none']['makespan_s'] / row['makespan_s']:.2f}"


def families() -> Rows:
    """Return the families in short: speed-ups over the best static cap."""
    yield "family", "best cap", "its makespan (s)", "no control", "CONCUR", "best other law", *_OURS
    for family, result, cap in _families():
        over = {law: result[law]["speed_up_over_best_static"] for law in ("none", *LAWS)}
        other = max(_OTHERS, key=lambda law: mean(over[law]))
        yield (
            family,
            cap.partition("=")[2],
            _interval(result[cap]["makespan_s"], 0).replace(",", ""),
            *(_interval(over[law], 2) for law in ("none", "concur")),
            f"{_interval(over[other], 2)} ({other})",
            _interval(over["hybrid"], 3),
            f"**{_interval(over['twin'], 3)}**",
        )


def families_all() -> Rows:
    """Return the families with every law."""
    yield "family", "best cap", "its makespan (s)", "no control", *LAWS
    for family, result, cap in _families():
        over = {law: result[law]["speed_up_over_best_static"] for law in ("none", *LAWS)}
        yield (
            family,
            cap.partition("=")[2],
            _interval(result[cap]["makespan_s"], 0).replace(",", ""),
            *(_interval(over[law], 2) for law in ("none", "concur", *_OTHERS)),
            _interval(over["hybrid"], 3),
            f"**{_interval(over['twin'], 3)}**",
        )


def families_metrics() -> Rows:
    """Return further metrics of the families: no control, the best cap, our laws."""
    yield (
        *("family", "policy", "tokens/s", "hits %", "recompute %", "agent p50 s", "agent p99 s"),
        *("gate wait p99 s", "Jain"),
    )
    for family, result, cap in _families():
        names = {"none": "no control", cap: "best static cap"} | {law: law for law in _OURS}
        for policy, name in names.items():
            row = result[policy]
            yield (
                family if policy == "none" else "",
                name,
                _interval(row["throughput_tokens_per_s"], 0).replace(",", ""),
                f"{100 * row['hit_rate']['mean']:.1f}",
                _interval(row["recompute_time_fraction"], 1, scale=100),
                f"{row['agent_latency_s.p50']['mean']:.0f}",
                _interval(row["agent_latency_s.p99"], 0).replace(",", ""),
                _interval(row["step_wait_s.p99"], 0).replace(",", ""),
                f"{row['jain_fairness']['mean']:.2f}",
            )


def _families() -> Iterable[tuple[str, dict[str, Any], str]]:
    for family in FAMILIES:
        result = read(f"families/{family}")
        yield family, result, str(best_cap(result))


def sweep() -> Rows:
    """Return some grid points of the sweep."""
    result = read("sweep")
    yield "agents", "pool (blocks)", "no control", "CONCUR", *_OURS, "best cap"
    for agents, blocks in ((agents, blocks) for agents, pools in SWEEP_ROWS.items() for blocks in pools):
        row = result[f"{agents} agents, {blocks} blocks"]
        cap = best_static_cap(row)
        assert cap is not None
        seconds = (f"{row[law]:.1f}" for law in ("none", "concur", *_OURS))
        yield f"{agents}", f"{blocks:,}", *seconds, f"{row[cap]:.1f} ({cap.partition('=')[2]})"


def tune() -> Rows:
    """Return the check of the tuned law on held-out seeds."""
    result = read("tune")
    deployed, hindsight = (result[f"{name}_cap"].partition("=")[2] for name in ("deployed", "hindsight"))
    names = {
        "start": "CONCUR, the paper's constants",
        "tuned": "CONCUR, tuned",
        "deployed_cap": f"agent cap {deployed}, best on the tuning seeds",
        "hindsight_cap": f"agent cap {hindsight}, best in hindsight",
    }
    yield (
        *("policy", "makespan (s)", "gain over the paper's constants", "over the cap of the tuning seeds"),
        "over the cap in hindsight",
    )
    for name, text in names.items():
        row = result[f"of_{name}"]
        gains = ("over_start", "over_deployed_cap", "over_hindsight_cap")
        own = f"over_{name}"
        yield (
            text,
            _interval(row["makespan_s"], 0),
            *("1" if gain == own else _interval(row[gain], 2) for gain in gains),
        )


def paper() -> Rows:
    """Return CONCUR's speed-ups in the paper's headline settings."""
    page = json.loads((ROOT / "examples" / "paper" / "paper.json").read_text(encoding="utf-8"))
    yield (
        *("CONCUR over no control", "paper", "ten-step agents, as in its Fig. 1", "lengthened"),
        "lengthened: best static cap, hybrid",
    )
    rows = next(table for table in page["tables"]["table1"] if table["title"] == "lengthened")["rows"]
    lengthened = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    for key in ("table1.qwen_tp8.concur", "fig6.concur", "table1.deepseek_tp16_40.concur"):
        found = {each["reading"]: each for each in page["findings"] if each["key"] == key}
        setting = found["lengthened"]["setting"]
        cap, hybrid = (
            re.search(r"\((\d+\.\d\d)x", lengthened[setting][column]) for column in ("best cap", "hybrid")
        )
        assert cap is not None
        assert hybrid is not None
        ours = (_interval(found[reading]["ours"], 2) for reading in ("as printed", "lengthened"))
        yield setting, f"{found['lengthened']['printed']:.2f}", *ours, f"{cap[1]}, {hybrid[1]}"


def paper_engines() -> Rows:
    """Return how many of the printed numbers each engine reproduces, in both readings."""
    (header, *printed), (_, *lengthened) = (tables[0]["rows"] for tables in _paper_engines())
    yield "engine", *header[1:], *(f"lengthened: {name}" for name in header[1:])
    for one, other in zip(printed, lengthened, strict=True):
        yield *one, *other[1:]


def paper_hicache() -> Rows:
    """Return the printed numbers of HiCache, and ours on each host tier."""
    for reading, tables in zip(("as printed", "lengthened"), _paper_engines(), strict=True):
        header, *rows = tables[3]["rows"]
        values = [place for place, name in enumerate(header) if name != "verdict"]
        if reading == "as printed":
            yield "agents", *(header[place] for place in values)
        for row in rows:
            yield reading, *(row[place] for place in values)


def _paper_engines() -> tuple[Any, Any]:
    """Return the tables of the engines' parts: as printed, lengthened."""
    page = json.loads((ROOT / "examples" / "paper_sglang" / "paper.json").read_text(encoding="utf-8"))
    return page["tables"]["engines"], page["tables"]["engines_lengthened"]


def live() -> Rows:
    """Return simulated against live, on the CPU build."""
    path = ROOT / "validate" / "results" / "cpu_tiny" / "confrontation.json"
    policies = json.loads(path.read_text(encoding="utf-8"))["policies"]
    names = {"none": "no control", "concur": "CONCUR"}
    yield "policy", "makespan (s): simulated", "live, two runs", "error", "hit rate: simulated", "live"
    for policy, row in sorted(policies.items(), key=lambda each: _order(each[0])):
        makespan, hits = row["makespan_s"], row["hit_rate"]
        yield (
            names.get(policy, policy.replace("agent_cap=", "agent cap ")),
            f"{makespan['simulated']:.1f}",
            ", ".join(f"{run:.1f}" for run in sorted(makespan["live_runs"])),
            f"{100 * makespan['error_frac']:+.1f} %",
            _percent(hits["simulated"], 1),
            _percent(hits["live"], 1),
        )


def published() -> Rows:
    """Return what was measured by others, and predicted."""
    path = ROOT / "validate" / "results" / "published" / "single_node.json"
    yield "arm", "makespan (s): measured", "predicted", "error", "hit rate: measured", "predicted"
    for name, metrics in json.loads(path.read_text(encoding="utf-8"))["arms"].items():
        makespan, hits = metrics["makespan_s"], metrics["hit_rate"]
        is_measured = bool(makespan["measured"])
        yield (
            name,
            ", ".join(f"{run:.0f}" for run in makespan["measured"]) or "-",
            _interval(makespan["predicted"], 0),
            f"{100 * makespan['error']:+.1f} %" if is_measured else "-",
            ", ".join(f"{run:.3f}" for run in hits["measured"]) or "-",
            _interval(hits["predicted"], 3),
        )


def _order(policy: str) -> tuple[int, int]:
    kind, _, cap = policy.partition("=")
    return ("none", "agent_cap", "concur", "hybrid").index(kind), int(cap or 0)


TABLES: Final[Mapping[str, Callable[[], Rows]]] = {
    "front": front,
    "react": react,
    "claude_code": lambda: _single("claude_code"),
    "tau_airline": lambda: _single("tau_airline"),
    "engines": engines,
    "domain": domain,
    "judge": lambda: judged("judge"),
    "judge_orders": lambda: judged("judge_orders"),
    "judge_arrivals": lambda: judged("judge_arrivals"),
    "hurts": hurts,
    "families": families,
    "fleets": fleets,
    "fleet_shapes": fleet_shapes,
    "fleet_live": fleet_live,
    "fleet_twin": fleet_twin,
    "fleet_waits": fleet_waits,
    "families_all": families_all,
    "families_metrics": families_metrics,
    "sweep": sweep,
    "tune": tune,
    "paper": paper,
    "paper_engines": paper_engines,
    "paper_hicache": paper_hicache,
    "live": live,
    "advice": advice,
    "offload": offload,
    "published": published,
    "releases": releases,
    "tier_matrix": tier_matrix,
}
