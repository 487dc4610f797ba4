"""What README and documentation say, held to what runs: commands, links, tables, numbers in sentences."""

import functools
import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks.result_files import RESULTS, best_cap, read
from benchmarks.results import (
    COMPARISONS,
    ELSEWHERE,
    ENGINES,
    STUDIES,
    SWEEP,
    TUNE,
    compare,
    differences,
    makers,
)
from benchmarks.tables import FAMILIES, PAGES, TABLES, fill, made
from benchmarks.workloads import BENCHMARKS
from concur.calib.fit.check import parse_batch, predict_step
from concur.cli import build_app
from concur.sim.lab.grid import load_grid
from concur.sim.lab.oracle import ORACLE
from concur.sim.scenario.build import build_workload
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.scenario.scenario import load_scenario
from concur.sim.step_time.profile import load_profile, shipped_profiles
from docs.site import GENERATED
from tests.helpers import ROOT
from tests.parity import test_parity
from tests.parity.scenarios import TRACE_CASES
from tests.parity.test_mutations import MUTANTS

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs" / "pages"
BOOK = "\n\n".join([README, *(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("**/*.md")))])
ALL_PAGES = sorted(
    path
    for path in ROOT.glob("**/*.md")
    if not re.match(r"\.|build$|runs$", path.relative_to(ROOT).parts[0])  # environments, and what is made
)
PLACEHOLDERS = {
    "SCENARIO.toml": "examples/react.toml",
    "GRID.toml": "examples/sweep.toml",
    "mine.toml": "examples/react.toml",
    "N": "2",
    "fleet.routing=settled": "fleet.routing=session",  # what the page on routers builds
    "examples/families/FAMILY.toml": "examples/families/react.toml",
    "examples/hurts/NAME.toml": "examples/hurts/host_cache.toml",
}


COMMAND = typer.main.get_command(build_app())


def words_of(page: str) -> str:
    """Return a page as one line, so that a phrase is found however it is wrapped."""
    return " ".join(page.split())


def commands(page: str) -> Iterator[list[str]]:
    """Yield the `concur` commands of a page, in code blocks and in sentences, each alternative of a|b."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`(concur [^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL))
    for text in (*lines, *spans):
        if not text.startswith("concur ") or "..." in text.split():
            continue
        usage = re.sub(r"\[(--[^]]*)\](\.\.\.)?", r"\1", words_of(text))
        words = [
            PLACEHOLDERS.get(word, word) for word in shlex.split(usage.removesuffix("&"), comments=True)[1:]
        ]
        choices = [word.split("|") if "|" in word else [word] for word in words]
        for choice in max(choices, key=len):
            yield [choice if choice in each else each[0] for each in choices]


def parse(words: list[str]) -> Any:
    """Parse a command as the real one does, without running it; `None` if it only names a verb."""
    verb: Any = COMMAND
    rest = list(words)
    if rest[0].startswith("--"):  # of the root itself
        assert rest[0] in {name for option in verb.params for name in option.opts}
        return None
    while hasattr(verb, "resolve_command"):
        assert rest, f"concur {' '.join(words)}: is a group of verbs"
        context = verb.make_context("concur", [], resilient_parsing=True)
        _, verb, rest = verb.resolve_command(context, rest)
    return verb.make_context(words[0], rest) if rest else None


@functools.cache
def num_points(grid: str) -> int:
    return len(load_grid(Path(grid), []).points)


COMMANDS = {
    " ".join(words): words
    for path in ALL_PAGES
    if path.name != "LOG.md"  # a diary: what was run at the time
    for words in commands(path.read_text(encoding="utf-8"))
}


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses_and_its_scenario_and_policies_are_some(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    context = parse(COMMANDS[command])
    if context is None:
        return
    given = context.params
    if "grid" in given:
        assert num_points(given["grid"]) > 0
    if "scenario" in given and "$" not in str(given["scenario"]):
        overrides = [each for each in given.get("overrides") or () if each != "section.key=value"]
        scenario = load_scenario(Path(given["scenario"]), [each for each in overrides if "$" not in each])
        policies = [*(given.get("controllers") or given.get("policies") or ()), *context.args]
        for policy in policies:
            assert policy == ORACLE or parse_controllers(policy, scenario.controller)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pages = "".join(path.read_text(encoding="utf-8") for path in ALL_PAGES)
    targets = set(re.findall(r"^(?:make|`make|.*`make) ([a-z-]+)", pages, re.MULTILINE))
    assert {"demo", "test", "results"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", each).lower().replace(" ", "-")
        for each in re.findall(r"^#+ (.+)$", page, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            leads_to = (path.parent / target.partition("#")[0]).resolve()
            assert leads_to.exists() or leads_to in GENERATED, target


def test_the_readme_is_a_face() -> None:
    assert len(README.encode()) <= 8192
    assert len(re.findall(r"^<!-- table", README, re.MULTILINE)) == 1
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1


def test_the_results_of_all_tables_are_committed() -> None:
    assert all(made(table) for table in TABLES)


@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_what_the_committed_results_say(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert fill(text, page).splitlines() == text.splitlines()


def test_every_result_has_its_table_and_its_command() -> None:
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"<!-- table (\w+) -->", pages)) == set(TABLES)
    headlines = [COMPARISONS[name] for name in ("react", "claude_code", "tau_airline")]
    for command in (*headlines, ENGINES, SWEEP, TUNE):
        assert command in words_of(BOOK)


def test_one_run_makes_every_committed_result_but_those_that_need_vllm() -> None:
    committed = {path.relative_to(RESULTS).with_suffix("").as_posix() for path in RESULTS.rglob("*.json")}
    assert committed - set(ELSEWHERE) == set(makers())
    for command in [*ELSEWHERE.values(), *(f"python -m {module}" for module in STUDIES.values())]:
        assert command in words_of(BOOK), command


def test_what_is_cheap_of_the_results_comes_out_again() -> None:
    found = compare("concur compare examples/tau_airline.toml --controllers none agent_cap=40 hybrid twin")
    committed = read("tau_airline")
    assert best_cap(committed) == "agent_cap=40"
    assert not list(differences({policy: committed[policy] for policy in found}, found))


def test_what_a_clock_says_is_no_change_of_a_result() -> None:
    old, new = {"case": {"cpu_s": 1.0, "best": 4}}, {"case": {"cpu_s": 2.0, "best": 4}}
    assert not list(differences(old, new))
    assert list(differences(old, {"case": {"cpu_s": 1.0, "best": 5}})) == ["case best: 4 -> 5"]


def test_the_python_of_the_tutorial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (block,) = [
        block for block in blocks if "simulate(" in block
    ]  # the other: tests/live/test_engine_gate.py
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(block, names)  # the tutorial's own words
    assert 0.5 < names["run"].metrics["hit_rate"] < 1.0


def say(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def claims() -> Iterator[str]:
    """Yield phrases of README and documentation with their numbers, computed."""
    pools = {pool for case in TRACE_CASES for pool in case.pools}
    numbers = {3: "three", 5: "five", 17: "seventeen"}
    yield f"{numbers[len(TRACE_CASES)]} real traces in {numbers[len(pools)]} pools each"
    yield f"{numbers[len(MUTANTS)]} deliberate changes of a rule are each caught"
    (mark,) = test_parity.test_random_worlds_are_identical.pytestmark  # type: ignore[attr-defined]
    assert mark.args[1] == [(0, 300), (None, 300)]
    yield "on 600 random worlds, half of them new in every run"
    yield from sweep_claims()
    yield from tune_claims()
    longest = {name: read(f"families/{name}")["hybrid"]["step_wait_s.max"]["mean"] for name in FAMILIES}
    family = max(longest, key=lambda name: longest[name])
    own = read(f"families/{family}")["twin"]["step_wait_s.max"]["mean"]
    yield f"(`{family}`: {say(longest[family])} s in the mean over seeds; `twin` {say(own)} s)"
    yield from judge_claims()
    yield f"whose pool holds about {agents_that_fit('react')} of them at their longest"
    workload, pool_tokens = demand("tau_airline")
    assert 4.5 < workload / pool_tokens < 5.5
    yield "in a pool that holds a fifth of their histories"
    link = load_scenario(ROOT / "examples" / "hurts" / "host_cache.toml").vllm.host_cache
    reload_s = link.kv_bytes_per_token / link.bandwidth_bytes_per_s
    prefill_s = (
        predict_step(load_profile("h100-sxm_qwen3-32b_tp2"), parse_batch(["8192@0"], [])).step_ms / 8.192e6
    )
    assert 8 < prefill_s / reload_s < 12
    yield "at 256 KiB per token ten times cheaper than prefill"
    yield from live_claims()


def judge_claims() -> Iterator[str]:
    ratios = [
        result["twin"]["makespan_s"]["mean"] / result[str(best_cap(result))]["makespan_s"]["mean"]
        for result in map(read, [f"families/{name}" for name in FAMILIES])
    ]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    yield f"`twin` is {100 * (1 - mean):.1f} % ahead of the best caps in the mean"
    worst = max(range(len(ratios)), key=lambda number: ratios[number])
    yield f"{100 * (ratios[worst] - 1):.1f} % behind the best one at worst (`{FAMILIES[worst]}`)"


def sweep_claims() -> Iterator[str]:
    points = read("sweep")
    yield f"{points.pop('num_runs'):,} runs"
    caps, behind = [], []
    for row in points.values():
        own = {policy: seconds for policy, seconds in row.items() if policy.startswith("agent_cap=")}
        best = min(own, key=lambda policy: own[policy])
        caps.append(int(best.partition("=")[2]))
        behind.append(row["hybrid"] / own[best] - 1)
    yield f"The best cap moves from {min(caps)} to {max(caps)} with the pool."
    yield f"On all {len(points)} grid points hybrid stays within {-(-100 * max(behind) // 1):.0f} % of it"


def tune_claims() -> Iterator[str]:
    law = read("tune")["law"]
    yield f"below the tuned U_low of {law['u_low_frac']:.2f}"


def demand(name: str) -> tuple[int, int]:
    """Return the tokens of all histories at their longest (the shared prefix once), and the pool's."""
    scenario = load_scenario(ROOT / "examples" / f"{name}.toml")
    agents = build_workload(scenario).agents
    own = sum(agent.peak_context_tokens - agent.shared_prefix_tokens for agent in agents)
    return own + agents[0].shared_prefix_tokens, scenario.engine.pool_tokens


def agents_that_fit(name: str) -> int:
    scenario = load_scenario(ROOT / "examples" / f"{name}.toml")
    agents = build_workload(scenario).agents
    longest = sum(agent.peak_context_tokens for agent in agents) / len(agents)
    return round(scenario.engine.pool_tokens / longest)


def live_claims() -> Iterator[str]:
    folder = ROOT / "validate" / "results"
    found = json.loads((folder / "cpu_tiny" / "confrontation.json").read_text(encoding="utf-8"))["speed_ups"]
    best, concur = (found[policy] for policy in ("agent_cap=24", "concur"))
    yield (
        f"The best cap over no control: {best['simulated']:.2f} times simulated, {best['live']:.2f} live; "
        f"CONCUR {concur['simulated']:.2f} and {concur['live']:.2f}"
    )
    path = folder / "cpu_tiny_twin" / "confrontation.json"
    twin = json.loads(path.read_text(encoding="utf-8"))["policies"]
    for policy, name in {"agent_cap=24": "agent cap 24", "concur": "CONCUR", "none": "no control"}.items():
        both = twin[policy]["makespan_s"]
        yield f"{name} {both['simulated']:.1f} and {both['live']:.1f}"
    both = twin["hybrid"]["makespan_s"]
    yield f"hybrid {both['simulated']:.1f} and {both['live']:.1f} s"
    laws = json.loads((folder / "cpu_tiny_laws" / "confrontation.json").read_text(encoding="utf-8"))[
        "policies"
    ]
    for policy, name in {
        "gradient": "gradient",
        "concur": "CONCUR",
        "vegas": "Vegas",
        "ledger": "ledger",
    }.items():
        both = laws[policy]["makespan_s"]
        unit = " s" if policy == "gradient" else ""
        yield f"{name} {both['simulated']:.1f} and {both['live']:.1f}{unit}"


def test_the_sentences_have_their_numbers() -> None:
    text = words_of(BOOK)
    missing = [claim for claim in claims() if claim not in text]
    assert not missing


def test_the_table_of_speeds_is_of_the_benchmarks() -> None:
    page = (DOCS / "concepts" / "speed.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\| (?!workload)[a-z0-9]", page, re.MULTILINE)) == len(BENCHMARKS)


def test_the_calibration_readme_has_the_profiles_errors() -> None:
    page = (ROOT / "calib" / "README.md").read_text(encoding="utf-8")
    for name in shipped_profiles():
        errors = load_profile(name).held_out
        cells = [
            f"{100 * errors[regime].median_ape:.1f} / {100 * errors[regime].p95_ape:.1f} %"
            for regime in ("prefill", "decode", "mixed", "all")
        ]
        if errors["all"].worst_ape is not None:
            cells.append(f"{100 * errors['all'].worst_ape:.1f} %")
        assert re.search(rf"\| `{name}`[^|]*\| {re.escape(' | '.join(cells))} \|", page), name


def test_what_the_parts_of_twin_are_worth_is_what_the_results_say() -> None:
    result = read("twin_ablations")
    for words, variant in (
        ("a window instead of a budget in tokens", "a window instead of a budget"),
        ("no look-ahead", "no look-ahead"),
        ("a start once a second instead of as fast as the engine takes calls", "no hurry at the start"),
    ):
        found = re.search(rf"{words} ([\d.]+) \((?:worst case )?([\d.]+)\)", words_of(BOOK))
        assert found is not None
        expected = [f"{result[variant][name]:.2f}" for name in ("geometric_mean", "worst")]
        assert list(found.groups()) == expected
    assert f"gains nothing there ({result['the whole pool']['geometric_mean']:.2f})" in words_of(BOOK)
