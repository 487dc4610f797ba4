"""The documentation: what is made from the code is whole, the code of the pages runs, a shell completes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from concur.controllers import CATALOG
from concur.routing import ROUTERS, EngineLoad, RoutedCall, RouterSpec
from concur.sim.importers.importer import Notes
from concur.sim.scenario.scenario import Scenario, parse_scenario
from concur.sim.show.glossary import metric_meanings
from concur.sim.workload.generators import GENERATORS
from concur.sim.world.simulate import simulate
from docs import site
from docs.check import dead_links, loads_from_elsewhere
from docs.made import scenario
from docs.made.laws import as_markdown
from tests.helpers import ROOT, make_scenario


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page, also those in lists, as they are read."""
    text = (site.PAGES / page).read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def names_of(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, "page", "exec", dont_inherit=True), names)
    return names


@pytest.fixture(scope="module")
def scenario_page() -> str:
    return scenario.page()


def test_every_key_of_every_section_has_a_row(scenario_page: str) -> None:
    sections = scenario.sections(Scenario)
    assert len(sections) > 10
    for section in [*sections, *(GENERATORS[name] for name in GENERATORS.own)]:
        for name, field in section.model_fields.items():
            nested = scenario.sections(section)
            if name != "parameters" and field.annotation not in nested:
                assert f"| `{name}` |" in scenario_page, (section, name)


def test_a_row_has_bound_unit_and_default(scenario_page: str) -> None:
    assert "| `watermark` | number | ≥ 0, < 1 |  | `0.0` |" in scenario_page
    assert "| `max_tool_latency_s` | number | ≥ 0, ≤ 1,000,000 | s | `60.0` |" in scenario_page
    assert "| `num_gpu_blocks` | integer | ≥ 2, ≤ 50,000,000 | blocks | required |" in scenario_page


def test_every_metric_has_its_meaning() -> None:
    assert "sum of prompt lengths over calls" in metric_meanings()["prompt_tokens"]
    made = set(simulate(make_scenario()).metrics) - {"wall_clock_s"}
    assert made <= set(metric_meanings()), made - set(metric_meanings())


@pytest.mark.parametrize("name", site.MADE)
def test_a_page_that_is_made_has_a_heading_and_closes_its_blocks(name: str) -> None:
    text = site.make(name)
    assert text.startswith("# ")
    assert len(re.findall("^```", text, re.MULTILINE)) % 2 == 0


def test_every_adaptive_law_has_its_words() -> None:
    text = site.make("concepts/laws.md")
    for kind in CATALOG.own:
        assert kind in ("none", "request_cap", "agent_cap") or f"\n## {kind}\n" in text, kind


def test_every_verb_has_its_words() -> None:
    text = site.make("reference/cli.md")
    for words in ("concur compare", "concur trace import", "concur validate parity", "concur gateway"):
        assert re.search(rf"^##+ {words}$", text, re.MULTILINE), words
    assert "| `--controllers` |" in text


def test_literal_blocks_become_fenced_ones() -> None:
    assert as_markdown("So::\n\n    a < b\n\nand on.") == "So:\n\n```text\na < b\n```\n\nand on."


def test_links_lead_to_where_the_site_has_things() -> None:
    for text, expected in {
        "[a](../../../concur/orders.py)": "[a](../tree/concur/orders.py)",
        "[a](../../../calib/README.md#x)": "[a](../tree/calib/README.md#x)",
        "[a](../../../calib)": "[a](../tree/calib/README.md)",
        "[a](../../../sim)": "a",
        "![a](../../../examples/react.png)": "![a](../tree/examples/react.png)",
        "[a](https://example.org/x)": "[a](https://example.org/x)",
        "[a](../concepts/laws.md)": "[a](../concepts/laws.md)",
    }.items():
        assert site.relinked(text, "results/judge.md") == expected
    assert site.relinked("[a](../docs/pages/tutorial.md)", "tree/calib/README.md") == "[a](../../tutorial.md)"


def test_what_a_page_would_fetch_is_found() -> None:
    page = '<link rel="canonical" href="https://a"><script src="//b/c.js"></script><img src="d.png">'
    assert list(loads_from_elsewhere(page)) == ["//b/c.js"]
    assert list(loads_from_elsewhere("<style>@import url('https://e/f.css')</style>")) == ["https://e/f.css"]


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.html").touch()
    text = '<a href="b.html#x">b</a><a href="c.html">c</a><a href="#d">d</a><a href="https://e">e</a>'
    assert list(dead_links(tmp_path / "a.html", text)) == ["c.html"]


def test_the_law_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = blocks("contributing/law.md")
    monkeypatch.chdir(ROOT)
    run = names_of(first)["run"]
    assert run.label == "Halver"
    law = names_of(second)
    again = simulate(
        parse_scenario({**run.run["scenario"], "controller": {}}),
        law=lambda: law["Halver"](law["HalverParams"]()),
    )
    assert list(again.ticks["window"]) == list(run.ticks["window"]), "one law, written twice"


def test_the_importer_of_the_page_reads_its_format(tmp_path: Path) -> None:
    (code,) = blocks("contributing/importer.md")
    recording = tmp_path / "mine.jsonl"
    lines = [
        {"session": "a", "in": 100, "out": 20, "start": 1.0, "end": 2.5},
        {"session": "a", "in": 150, "out": 5, "start": 4.0, "end": 5.0},
        {"in": 1, "out": 1},
    ]
    recording.write_text("".join(json.dumps(line) + "\n" for line in lines))
    notes = Notes()
    (agent,) = names_of(code)["SESSIONS"].read(recording, notes)
    assert [step.new_prompt_tokens for step in agent.steps] == [100, 30]
    assert agent.steps[0].tool_latency_s == 1.5
    assert list(notes.left_out) == ["a call without a session"]


def test_the_router_of_the_page_keeps_sessions_where_they_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    names = names_of("\n".join(blocks("contributing/router.md")))
    assert [names[each] for each in ("first", "again", "other")] == [1, 1, 0]
    spec = RouterSpec(names["SettledParams"], names["Settled"])
    monkeypatch.setitem(ROUTERS.own, "settled", spec)
    fleet = {"num_engines": 3, "routing": "settled", "stats_interval_s": 1.0}
    run = simulate(make_scenario(workload={"num_agents": 12}, fleet=fleet))
    assert run.metrics["num_moves"] == 0
    assert set(run.requests["engine_index"]) == {0, 1, 2}
    asked = RoutedCall("a", session="a", prompt_tokens=1)
    names["router"].lost(1)
    assert names["router"].route(asked, [EngineLoad(), EngineLoad()], time_s=2.0) == 0, "settles anew"


def test_the_engine_of_the_page_carries_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = names_of("\n".join(blocks("contributing/engine.md")))["run"]
    ends = run.requests.sort_values("finished_s")["finished_s"]
    assert len(ends) > 20
    assert (ends.diff().dropna() > 0).all(), "one at a time"
    assert run.metrics["hit_rate"] == 0.0


@pytest.mark.parametrize(
    ("words", "expected"),
    [("concur com", "compare"), ("concur trace im", "import"), ("concur compare --contr", "--controllers")],
)
def test_a_shell_completes_verbs_and_options(words: str, expected: str) -> None:
    asked = {"_CONCUR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-m", "concur.cli"]
    found = subprocess.run(
        command, cwd=ROOT, env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == [expected]
