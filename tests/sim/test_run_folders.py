"""A comparison's folder: nothing foreign in it, nothing stale in its report, nothing lost at a Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from concur.sim.record.record import RunRecord, load_record
from concur.sim.runs.compare import Runs, run_pairs
from concur.sim.scenario.build import build_workloads
from concur.sim.scenario.scenario import load_scenario
from concur.sim.show.run_folders import ComparisonFolder, left_out_below, runs_below
from concur.sim.world.simulate import simulate
from tests.helpers import concur, leave_figures_empty

SCENARIO = """
[workload]
generator = "react"
num_agents = 4
mean_steps = 2
[engine]
num_gpu_blocks = 601
max_model_len = 8192
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    leave_figures_empty(monkeypatch)
    (tmp_path / "s.toml").write_text(SCENARIO)
    return tmp_path


def compare(monkeypatch: pytest.MonkeyPatch, *arguments: str, policies: tuple[str, ...] = ("none",)) -> int:
    into = ["--out", "d", "--jobs", "1"]
    return concur(monkeypatch, "compare", "s.toml", *into, *arguments, "--controllers", *policies)


def keep_a_run(folder: Path) -> None:
    """As a comparison leaves it, but for its figures, which take seconds."""
    place = ComparisonFolder(folder / "d", has_seeds=False)
    place.keep(simulate(load_scenario(folder / "s.toml")))
    (place.clear_report() / "index.html").write_text("an earlier page")


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str
) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert compare(monkeypatch, *arguments) == 2
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "report/notes.txt", "none/notes.txt", "other/notes.txt", "seed-0/notes.txt", "seed-1"],
)
def test_a_folder_with_anything_else_in_it_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    keep_a_run(folder)
    path = folder / "d" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    error = refusal(monkeypatch, capsys, folder)
    assert f"holds '{path.parent.name if name.startswith(('none', 'other')) else path.name}'" in error
    assert "choose another --out" in error


def test_a_folder_of_another_scenario_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_a_run(folder)
    for change, section in (
        ("engine.num_gpu_blocks=602", "engine"),
        ("workload.num_agents=3", "workload"),
        ("seed=1", "seed"),
        ("step_time.base_s=0.1", "step_time"),
    ):
        error = refusal(monkeypatch, capsys, folder, "--set", change)
        assert f"none is a run of another scenario ({section} differs); choose another --out" in error


def test_a_folder_of_the_same_scenario_is_written_again(folder: Path) -> None:
    keep_a_run(folder)
    place = ComparisonFolder(folder / "d", has_seeds=False)
    (folder / "d" / ".none.partial").mkdir()  # a run was killed here
    other_policy = load_scenario(
        folder / "s.toml", ["controller.kind=concur", "compare.controllers=['none']"]
    )
    place.check(other_policy, build_workloads(other_policy, [0]))
    place.keep(simulate(other_policy))
    assert {path.name for path in runs_below(folder / "d")} == {"concur"}
    seeds = load_scenario(folder / "s.toml", ["compare.seeds=[3]", "seed=7"])
    ComparisonFolder(folder / "d", has_seeds=True).check(seeds, build_workloads(seeds, [3]))


def test_another_trace_at_the_same_path_is_another_scenario(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_trace(tokens: int) -> None:
        step = {"new_prompt_tokens": tokens, "output_tokens": 5}
        (folder / "t.jsonl").write_text(json.dumps({"agent_id": "a", "steps": [step]}) + "\n")

    (folder / "s.toml").write_text('[workload]\ntrace = "t.jsonl"\n[engine]\nnum_gpu_blocks = 601\n')
    write_trace(100)
    keep_a_run(folder)
    write_trace(101)
    assert "another scenario (workload differs)" in refusal(monkeypatch, capsys, folder)


def test_policies_of_an_earlier_comparison_stay_out_of_the_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(monkeypatch, policies=("none", "agent_cap=2")) == 0
    assert compare(monkeypatch, policies=("none", "agent_cap=3")) == 0
    names = {path.name for path in (folder / "d" / "report").glob("timeline_*")}
    assert names == {f"timeline_{each}.{kind}" for each in ("none", "agent_cap_3") for kind in ("png", "pdf")}
    assert load_record(folder / "d" / "agent_cap=2").label == "agent_cap=2", "it is kept all the same"
    capsys.readouterr()
    assert concur(monkeypatch, "report", "d") == 0
    assert "d: not of the latest comparison, and left out: agent_cap=2" in capsys.readouterr().err
    page = (folder / "d" / "report" / "index.html").read_text()
    assert "agent_cap=3" in page
    assert "agent_cap=2" not in page


def test_a_report_of_a_whole_folder_needs_no_more_than_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(monkeypatch, policies=("none", "agent_cap=2")) == 0
    page = folder / "d" / "report" / "index.html"
    first = page.read_text()
    page.unlink()
    assert concur(monkeypatch, "report", "d") == 0
    assert "report: d/report/index.html" in capsys.readouterr().out
    assert page.read_text() == first
    (page.parent / "runs.json").unlink()  # as an earlier release left it: all runs there are
    assert concur(monkeypatch, "report", "d", "--out", "again") == 0
    assert (folder / "again" / "index.html").read_text() == first


def test_a_comparison_over_seeds_can_be_reported_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(monkeypatch, "--set", "compare.seeds=[0,1]", policies=("none", "agent_cap=2")) == 0
    assert concur(monkeypatch, "report", "d") == 0
    page = (folder / "d" / "report" / "index.html").read_text()
    assert "seeds 0, 1: mean and 95 % interval" in page
    for seed in (0, 1):
        assert f"seed-{seed}/index.html" in page
        own = (folder / "d" / "report" / f"seed-{seed}" / "index.html").read_text()
        assert f"seed {seed};" in own
    assert compare(monkeypatch, "--set", "compare.seeds=[0,1,2]", policies=("none",)) == 0
    found = runs_below(folder / "d")
    assert [path.relative_to(folder / "d").as_posix() for path in found] == [
        f"seed-{n}/none" for n in range(3)
    ]
    assert left_out_below(folder / "d", found) == ["seed-0/agent_cap=2", "seed-1/agent_cap=2"]


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_a_comparison_that_is_stopped_keeps_and_shows_what_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seeds: tuple[int, ...]
) -> None:
    whole = Runs.run

    def stopped(self: Runs, *args: object) -> Iterator[RunRecord]:
        for number, record in enumerate(sorted(whole(self, *args), key=_seed_and_label)):  # type: ignore[arg-type]
            if number == 3:
                raise KeyboardInterrupt
            yield record

    monkeypatch.setattr(Runs, "run", stopped)
    policies = ("agent_cap=1,2", "none") if seeds else ("agent_cap=1..3", "none")
    overrides = ["--set", f"compare.seeds={list(seeds)}"] if seeds else []
    assert compare(monkeypatch, *overrides, policies=policies) == 130
    printed = capsys.readouterr()
    assert f"stopped: 3 of {6 if seeds else 4} runs had ended; they are kept in d" in printed.err
    shown = {line.split()[1] for line in printed.out.splitlines() if line.startswith("│ ") and line[2] != " "}
    kept = {path.parent.relative_to("d").as_posix() for path in Path("d").rglob("run.json")}
    if seeds:
        assert kept == {"seed-0/agent_cap=1", "seed-0/agent_cap=2", "seed-0/none"}
        assert shown == {"agent_cap=1", "agent_cap=2", "none"}
    else:
        assert kept == shown == {"agent_cap=1", "agent_cap=2", "agent_cap=3"}
    assert len(runs_below(Path("d"))) == 3


def _seed_and_label(record: RunRecord) -> tuple[int, str]:
    return record.run["seed"], record.label


def test_the_same_command_goes_on_where_it_was_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(monkeypatch, policies=("none", "agent_cap=2")) == 0
    before = (folder / "d" / "none" / "run.json").read_bytes()
    asked: list[str] = []

    def counted(scenario: object, pairs: list[Any], *more: Any) -> Iterator[RunRecord]:
        asked.extend(config.label for config, _ in pairs)
        return run_pairs(scenario, pairs, *more)  # type: ignore[arg-type]

    monkeypatch.setattr("concur.sim.runs.compare.run_pairs", counted)
    capsys.readouterr()
    assert compare(monkeypatch, policies=("none", "agent_cap=2,3")) == 0
    assert asked == ["agent_cap=3"]
    assert "2 of 3 runs are in d already" in capsys.readouterr().err
    assert (folder / "d" / "none" / "run.json").read_bytes() == before
    assert len(runs_below(folder / "d")) == 3


@pytest.mark.parametrize(
    "change",
    [{"git_commit": "0" * 40}, {"versions": {"concur": "0.0"}}, {"complete": False}],
    ids=["other code", "other versions", "not complete"],
)
def test_a_run_of_other_code_or_half_a_run_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    assert compare(monkeypatch, policies=("none",)) == 0
    path = folder / "d" / "none" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    capsys.readouterr()
    assert compare(monkeypatch, policies=("none",)) == 0
    assert "already" not in capsys.readouterr().err
    assert load_record(path.parent).is_complete


def hear_the_keyboard() -> None:
    """A job in the background ignores interrupts, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_from_the_keyboard_is_status_130_and_keeps_what_has_ended(folder: Path) -> None:
    """The whole command, workers and all: one run has ended, one decides 48 million times."""
    step = {"new_prompt_tokens": 1, "output_tokens": 2, "tool_latency_s": 60}
    lines = [json.dumps({"agent_id": f"a{number}", "steps": [step] * 3}) for number in range(400)]
    (folder / "t.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "s.toml").write_text(
        '[workload]\ntrace = "t.jsonl"\n[engine]\nnum_gpu_blocks = 601\n'
        '[controller]\nkind = "agent_cap"\ncap = 1\ninterval_s = 0.001\n'
    )
    arguments = ["compare", "s.toml", "--out", "d", "--controllers", "none", "agent_cap=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "concur.cli", *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_the_keyboard,
    ) as process:
        while process.poll() is None and not (folder / "d" / "report" / "runs.json").exists():
            sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "stopped: 1 of 2 runs had ended; they are kept in d\n" in err, "beside what a worker may say"
    assert "│ none " in out
    assert load_record(folder / "d" / "none").label == "none"
