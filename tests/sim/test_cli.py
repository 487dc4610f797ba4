"""The command as a user meets it: what it prints, and one clear line with status 2 for every bad input."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.main import get_command

from concur.cli import verbs
from concur.sim.record.provenance import git_commit, short_commit
from concur.sim.record.record import load_record
from tests.helpers import concur, leave_figures_empty

SCENARIO = """
seed = 1
[workload]
generator = "react"
num_agents = 6
mean_steps = 3
[engine]
num_gpu_blocks = 601
max_model_len = 8192
[controller]
kind = "agent_cap"
cap = 3
"""
TRACE_LINE = {
    "agent_id": "a",
    "source": "test",
    "prefix_group": None,
    "shared_prefix_tokens": 0,
    "steps": [{"new_prompt_tokens": 500, "output_tokens": 20, "tool_latency_s": 1.0}],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SCENARIO)
    (tmp_path / "t.jsonl").write_text(json.dumps(TRACE_LINE) + "\n")
    return tmp_path


def test_simulate_writes_a_record_and_prints_its_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "simulate", "s.toml") == 0
    printed = capsys.readouterr().out
    assert "makespan_s" in printed
    assert "record: runs/s-agent_cap=3" in printed
    assert load_record(folder / "runs" / "s-agent_cap=3").metrics["num_agents"] == 6


def test_simulate_with_overrides_and_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--set",
        "workload.num_agents=4",
        "--set",
        "controller.kind=none",
        "--set",
        "controller.cap=3",
    ]
    assert concur(monkeypatch, "simulate", "s.toml", *arguments[:2], "--out", "r", "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_agents"] == 4
    assert concur(monkeypatch, "simulate", "s.toml", *arguments, "--out", "r2") == 2
    assert "cap is not a parameter of 'none'" in capsys.readouterr().err
    assert not (folder / "r2").exists()


def test_compare_and_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = ["--controllers", "none", "request_cap=2", "agent_cap=2,4", "concur+app_limited"]
    assert concur(monkeypatch, "compare", "s.toml", *policies, "--out", "all") == 0
    printed = capsys.readouterr().out
    for label in ("none", "request_cap=2", "agent_cap=2", "agent_cap=4", "concur+app_limited", "cool-down"):
        assert label in printed
    page = (folder / "all" / "report" / "index.html").read_text()
    assert page.count('"label":') == 5, "all policies can be switched on"
    for suffix in ("png", "pdf"):
        assert len(list((folder / "all" / "report").glob(f"*.{suffix}"))) == 5 + 3
    assert "http" not in page, "the page is self-contained"
    runs = [str(path) for path in sorted((folder / "all").iterdir()) if path.name != "report"]
    leave_figures_empty(monkeypatch)
    assert concur(monkeypatch, "report", *runs, "--out", "again") == 0
    names = {path.name for path in (folder / "again").glob("*.png")}
    assert {"throughput_against_cap.png", "time_split.png", "timeline_none.png"} <= names


def test_any_set_of_policies_can_be_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_figures_empty(monkeypatch)
    assert concur(monkeypatch, "compare", "s.toml", "--controllers", "request_cap=2,4", "--out", "caps") == 0
    for name, alpha in (("one", 2), ("two", 4)):
        arguments = ["--set", "controller.kind=concur", "--set", f"controller.alpha={alpha}", "--out", name]
        (folder / "c.toml").write_text(SCENARIO.replace("cap = 3", ""))
        assert concur(monkeypatch, "simulate", "c.toml", *arguments) == 0
    assert concur(monkeypatch, "report", "one", "two", "--out", "r") == 0
    assert "concur #2" in (folder / "r" / "index.html").read_text()


def test_runs_of_different_workloads_are_not_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in ("0", "1"):
        assert concur(monkeypatch, "simulate", "s.toml", "--set", f"seed={seed}", "--out", f"run{seed}") == 0
    assert concur(monkeypatch, "report", "run0", "run1", "--out", "r") == 2
    assert "not runs of one workload (seed differs)" in capsys.readouterr().err
    assert not (folder / "r").exists()


def test_compare_alone_needs_no_policies(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "compare", "s.toml", "--json") == 0
    labels = list(json.loads(capsys.readouterr().out))
    assert labels == ["none", "request_cap=1", *(f"agent_cap={cap}" for cap in (1, 2, 3, 4)), "concur"]


def test_trace_verbs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "trace", "check", "t.jsonl") == 0
    assert "ok, 1 agents, 1 calls" in capsys.readouterr().out
    assert concur(monkeypatch, "trace", "describe", "t.jsonl") == 0
    assert "peak context" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate", "missing.toml"], "no such scenario"),
        (["simulate", "t.jsonl"], "not readable as TOML"),
        (["simulate", "s.toml", "--set", "engine.num_gpu_blocks=0"], "engine.num_gpu_blocks = 0"),
        (["simulate", "s.toml", "--set", "engine.blocks=3"], "unknown key engine.blocks"),
        (["simulate", "s.toml", "--set", "engine"], "section.key=value"),
        (["simulate", "s.toml", "--set", "engine.max_model_len=500"], "max_model_len = 500; raise it"),
        (["simulate", "s.toml", "--set", "engine.num_gpu_blocks=20"], "set it to at least"),
        (["compare", "s.toml", "--controllers", "agent_cap=0"], "cap = 0 but must be between 1"),
        (["compare", "s.toml", "--controllers", "magic"], "kind = 'magic'"),
        (["report", "nowhere", "--out", "r"], "not a run record"),
        (["trace", "check", "nowhere.jsonl"], "no such trace"),
        (["trace", "describe", "s.toml"], "line 2, (whole line): not JSON"),
    ],
)
def test_bad_input_is_one_line_and_status_two_and_writes_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    before = sorted(folder.rglob("*"))
    assert concur(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert error.startswith("concur: ")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "no such command 'frobnicate'; see concur --help"),
        (["simulate"], "missing argument 'SCENARIO.toml'; see concur simulate --help"),
        (["simulate", "s.toml", "--colour"], "no such option: --colour"),
        (["compare", "s.toml", "none"], "unexpected 'none'; policies come after --controllers"),
        (["report", "x"], "nothing to write; give --out DIR"),
        (["sweep", "g.toml", "--out", "x", "--jobs", "0"], "'--jobs'"),
        (["sweep", "g.toml", "--out", "x", "--backend", "abacus"], "'--backend'"),
        (["trace", "frobnicate"], "see concur trace --help"),
    ],
)
def test_bad_usage_is_one_line_and_status_two(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert concur(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("concur: ")
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["trace"]])
def test_without_a_verb_the_help_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert concur(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert "Usage" in printed.out + printed.err


def test_version_names_the_release_and_the_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "--version") == 0
    commit = git_commit()
    of_commit = f" (commit {short_commit(commit)})" if commit else ""
    assert capsys.readouterr().out == f"concur {version('concur-admission')}{of_commit}\n"


def test_an_output_that_cannot_be_written_is_refused_before_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("not a folder")
    for out in ("file/run", "file"):
        assert concur(monkeypatch, "simulate", "s.toml", "--out", out) == 2
        assert "choose another --out" in capsys.readouterr().err
    assert (folder / "file").read_text() == "not a folder"


def test_an_agent_that_is_too_long_is_skipped_and_counted_when_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long_line = TRACE_LINE | {"agent_id": "b", "steps": [{"new_prompt_tokens": 9000, "output_tokens": 1}]}
    with (folder / "t.jsonl").open("a") as file:
        file.write(json.dumps(long_line) + "\n")
    text = SCENARIO.replace('generator = "react"\nnum_agents = 6\nmean_steps = 3', 'trace = "t.jsonl"')
    (folder / "trace.toml").write_text(text)
    assert concur(monkeypatch, "simulate", "trace.toml") == 2
    assert "workload.max_context_tokens=8192" in capsys.readouterr().err
    skip = ["--set", "workload.max_context_tokens=8192"]
    assert concur(monkeypatch, "simulate", "trace.toml", *skip, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert (metrics["num_agents"], metrics["num_agents_skipped"]) == (1, 1)


def test_an_interrupt_is_status_130_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(
        "concur.sim.world.simulate.compute_metrics", interrupted
    )  # the run is over, the record not yet written
    assert concur(monkeypatch, "simulate", "s.toml", "--out", "run") == 130
    assert capsys.readouterr().err == "stopped: nothing is written\n"
    assert sorted(folder.rglob("*")) == before


def test_an_interrupt_while_the_packages_load_is_status_130_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("concur.cli.build_app", interrupted)
    assert concur(monkeypatch, "simulate", "s.toml") == 130


def test_the_list_of_verbs_loads_none_of_them(folder: Path) -> None:
    """What takes a second to import is there for whoever runs it."""
    code = (
        "import sys\n"
        "from concur.cli import main\n"
        "sys.argv = ['concur', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pandas', 'pyarrow', 'scipy', 'matplotlib', 'numpy', 'pydantic', 'simpy', 'joblib'}\n"
        "print('heavy:', *sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
    for verb in ("simulate", "compare", "report", "sweep", "tune", "trace", "paper", "example"):
        assert f" {verb} " in done.stdout
    for verb in ("validate", "calibrate"):
        assert f" {verb} " in done.stdout


def test_every_verb_has_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in verbs():
        assert concur(monkeypatch, verb.name, "--help") == 0
        assert f"Usage: concur {verb.name}" in capsys.readouterr().out


def test_one_word_means_one_thing_in_every_verb() -> None:
    """Who knows `--seeds` of one verb knows it of all."""
    words: dict[str, set[str | None]] = {}
    for verb in verbs():
        module, _, attribute = verb.application.partition(":")
        command = get_command(getattr(import_module(module), attribute))
        for each in getattr(command, "commands", {"": command}).values():
            for parameter in each.params:
                for option in parameter.opts:
                    words.setdefault(option, set()).add(getattr(parameter, "metavar", None))
    assert {"--controllers", "--seeds", "--jobs", "--json", "--out", "--set"} <= words.keys()
    assert "--policies" not in words
    assert words["--controller"] == {"LAW"}  # of the gateway, which runs one law and compares none
    assert words["--seeds"] == {"N[,N]|N..N"}
    assert {len(words[option]) for option in ("--jobs", "--json", "--set")} == {1}


def test_a_packaged_example_runs_from_any_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--set", "workload.num_agents=3", "--json"]
    assert concur(monkeypatch, "simulate", "react.toml", *small) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0] == "react.toml is not here: the packaged example"
    assert json.loads(printed.out)["num_agents"] == 3
    assert concur(monkeypatch, "example") == 0
    assert "hurts/host_cache.toml" in capsys.readouterr().out
    assert concur(monkeypatch, "example", "react.toml") == 0
    (folder / "mine.toml").write_text(capsys.readouterr().out)
    assert concur(monkeypatch, "simulate", "mine.toml", *small) == 0
    assert concur(monkeypatch, "example", "nothing.toml") == 2


def test_a_file_of_ones_own_goes_before_an_example_of_that_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "react.toml").write_text(SCENARIO)
    assert concur(monkeypatch, "simulate", "react.toml", "--json") == 0
    printed = capsys.readouterr()
    assert "packaged" not in printed.err
    assert json.loads(printed.out)["num_agents"] == 6
