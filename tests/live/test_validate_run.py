"""`concur validate run --engine URL` as a user meets it, on a fake server whose engine never evicts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from concur.sim.record.record import load_record
from concur.validate.live import live_cli
from concur.validate.live.fake_server import FakeEngine, FakeServer
from concur.validate.live.server import Server, ServerOptions, attach
from tests.helpers import concur

SCENARIO = """
seed = 1
[workload]
generator = "react"
num_agents = 3
mean_steps = 2
question_median_tokens = 60
output_median_tokens = 5
observation_median_tokens = 40
shared_prefix_tokens = 32
tool_latency_median_s = 0.01
[engine]
block_size = 16
num_gpu_blocks = 901
max_model_len = 8192
[controller]
interval_s = 0.05
[record]
timeline_interval_s = 0.02
"""
ENGINE = FakeEngine(16, 901, token_s=0.002)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SCENARIO)
    return tmp_path


class Run:
    """The verb in this process; what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, policies: str = "none") -> tuple[int, str, str]:
        command = ["validate", "run", "s.toml", *arguments, "--controllers", policies]
        return self.verb(*command, *(() if "--out" in arguments else ("--out", "o")))

    def verb(self, *command: str) -> tuple[int, str, str]:
        status = concur(self._monkeypatch, *command)
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err


@pytest.fixture
def drawing_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


@pytest.fixture
def run(drawing_run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The verb without its page, whose figures take longer than the runs."""
    monkeypatch.setattr(live_cli, "write_confrontation", lambda *args: args[-1] / "index.html")
    return drawing_run


def test_a_server_of_the_scenarios_sizes_is_run_on_and_what_it_does_not_say_is_noted(
    folder: Path, drawing_run: Run
) -> None:
    with FakeServer(ENGINE).in_thread() as fake:
        status, out, err = drawing_run("--engine", fake.url, "--no-judge", "--json")
        assert status == 0, err
        assert len(fake.served) > 3
    result = json.loads(out)
    assert any("not checked" in note for note in result["notes"])
    assert "none, run-0 ..." in err
    assert f"vLLM 0.32.0 answers at {fake.url}" in err
    assert "not checked" in (folder / "o" / "report" / "index.html").read_text()
    assert result["policies"]["none"]["rounds"] == [0]


@pytest.mark.parametrize("judge", ["--judge", "--no-judge"])
def test_a_server_of_other_sizes_is_refused_before_any_call(folder: Path, run: Run, judge: str) -> None:
    with FakeServer(FakeEngine(8, 2433)).in_thread() as fake:
        status, _, err = run("--engine", fake.url, judge)
        assert (status, fake.num_calls) == (2, 0)
    (line,) = [line for line in err.splitlines() if line.startswith("concur: ")]
    assert "block_size is 8, the scenario's 16; num_gpu_blocks is 2433, the scenario's 901" in line
    assert "--set engine.block_size=8 --set engine.num_gpu_blocks=2433" in line
    assert not (folder / "o").exists()


def test_the_remedy_that_is_named_is_one(folder: Path, run: Run) -> None:
    with FakeServer(FakeEngine(8, 2433)).in_thread() as fake:
        _, _, err = run("--engine", fake.url)
        line = err.partition("simulate the server's own with ")[2].partition(", or start")[0]
        status, _, err = run("--engine", fake.url, *line.split(), "--no-judge")
    assert status == 0, err


def test_a_server_that_tells_no_cached_tokens_has_a_verdict_all_the_same(folder: Path, run: Run) -> None:
    with FakeServer(FakeEngine(16, 901, token_s=0.002, tells_cached_tokens=False)).in_thread() as fake:
        status, out, err = run("--engine", fake.url, "--no-judge", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert abs(result["policies"]["none"]["hit_rate"]["error"]) < 0.03, "nothing is evicted in either world"
    assert any("that of its counters" in note for note in result["notes"])


def test_a_server_outside_its_development_mode_is_one_line(folder: Path, run: Run) -> None:
    with FakeServer(FakeEngine(16, 901, is_dev=False)).in_thread() as fake:
        status, _, err = run("--engine", fake.url)
        assert (status, fake.num_calls) == (2, 0)
    assert "start it with VLLM_SERVER_DEV_MODE=1" in err
    assert not (folder / "o").exists()


def test_an_off_has_its_reason_in_the_table_and_in_the_json(folder: Path, run: Run) -> None:
    slow = FakeEngine(16, 901, token_s=0.05)
    with FakeServer(slow).in_thread() as fake:
        status, out, _ = run("--engine", fake.url)
    assert status == 1
    assert "OFF" in out
    assert "recalibrate the step-time profile" in " ".join(out.split())
    status, out, _ = run.verb("validate", "compare", "o", "--json")
    assert status == 1
    (reason, *_) = json.loads(out)["policies"]["none"]["reasons"]
    assert reason.startswith("steps took ")


def test_complete_runs_are_not_repeated_and_need_no_server(folder: Path, run: Run) -> None:
    with FakeServer(ENGINE).in_thread() as fake:
        assert run("--engine", fake.url, "--no-judge")[0] == 0
    status, _, err = run("--engine", fake.url, "--no-judge", "--set", "step_time.base_s=0.01")
    assert status == 0, err


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("workload.num_agents=4", "workload.num_agents is 3 there, 4 here"),
        ("seed=2", "seed is 1 there, 2 here"),
        ("engine.max_num_seqs=8", "engine.max_num_seqs is 256 there, 8 here"),
        ("controller.interval_s=0.1", "controller.parameters.interval_s is 0.05 there, 0.1 here"),
    ],
)
def test_runs_of_another_scenario_are_not_taken_for_this_ones(
    folder: Path, run: Run, override: str, told: str
) -> None:
    with FakeServer(ENGINE).in_thread() as fake:
        assert run("--engine", fake.url, "--no-judge")[0] == 0
        before = load_record(folder / "o" / "live" / "none" / "run-0").run
        status, _, err = run("--engine", fake.url, "--set", override)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("concur: ")]
    assert told in line
    assert "choose another --out" in line
    assert load_record(folder / "o" / "live" / "none" / "run-0").run == before


def test_policies_beside_runs_of_another_scenario_are_refused(folder: Path, run: Run) -> None:
    with FakeServer(ENGINE).in_thread() as fake:
        assert run("--engine", fake.url, "--no-judge")[0] == 0
        status, _, err = run("--engine", fake.url, "--set", "seed=2", policies="agent_cap=2")
    assert status == 2
    assert "seed is 1 there, 2 here" in err
    assert not (folder / "o" / "live" / "agent_cap=2").exists()


def test_runs_are_not_continued_on_another_server(folder: Path, run: Run) -> None:
    with FakeServer(ENGINE).in_thread() as fake:
        assert run("--engine", fake.url, "--no-judge")[0] == 0
    other: dict[str, Any] = {"model_config": {"dtype": "torch.float16"}}
    with FakeServer(FakeEngine(16, 901, resolved=other)).in_thread() as fake:
        assert run("--engine", fake.url, "--no-judge", "--repeats", "2")[0] == 0, "it says more, nothing else"
        record = load_record(folder / "o" / "live" / "none" / "run-1")
        assert record.run["engine"]["dtype"] == "float16"
    with FakeServer(
        FakeEngine(16, 901, resolved={"model_config": {"dtype": "bfloat16"}})
    ).in_thread() as fake:
        status, _, err = run("--engine", fake.url, "--no-judge", "--repeats", "3")
    assert status == 2
    assert "dtype is float16 there, bfloat16 here" in err


def test_gpu_without_a_gpu_is_refused_at_once(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_cli, "why_no_gpu", lambda environment: "no driver's device is in /dev")
    monkeypatch.setattr(live_cli, "started", None)  # nothing is started
    status, _, err = run("--engine", "gpu")
    assert status == 2
    assert err.count("\n") == 1
    assert "--engine gpu but this machine has no GPU (no driver's device is in /dev)" in err
    assert "--engine cpu" in err
    assert "--engine URL" in err
    assert not (folder / "o").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("engine.host_cache.capacity_tokens=9000", "without a host cache"),
        ("engine.async_scheduling=true", "CPU build never does that"),
        ("engine.num_gpu_blocks=512", "holds 8176 tokens but vLLM starts only if a request of max_model_len"),
    ],
)
def test_an_engine_that_cannot_be_started_as_asked_is_refused_at_once(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, override: str, told: str
) -> None:
    monkeypatch.setattr(live_cli, "started", None)
    status, _, err = run("--engine", "cpu", "--set", override)
    assert (status, err.count("\n")) == (2, 1)
    assert told in err
    assert not (folder / "o").exists()


def test_a_report_that_could_not_be_written_is_refused_before_the_runs(folder: Path, run: Run) -> None:
    (folder / "o").mkdir()
    (folder / "o" / "report").write_text("a file")
    with FakeServer(ENGINE).in_thread() as fake:
        status, _, err = run("--engine", fake.url)
        assert (status, fake.num_calls) == (2, 0)
    assert "choose another --out" in err


FLEET = ("--set", "fleet.num_engines=2", "--set", "fleet.routing=session", "--set", "fleet.gate=per_engine")


def test_a_fleet_is_replayed_on_as_many_servers_and_simulated_beside(folder: Path, run: Run) -> None:
    one, other = FakeServer(ENGINE), FakeServer(ENGINE)
    with one.in_thread(), other.in_thread():
        engines = f"{one.url},{other.url}"
        status, _, told = run("--engine", engines, *FLEET, "--no-judge", policies="agent_cap=2")
    assert status == 0, told
    live = load_record(folder / "o" / "live" / "agent_cap=2" / "run-0")
    simulated = load_record(folder / "o" / "sim" / "agent_cap=2")
    assert len(one.served) + len(other.served) == len(live.requests) == len(simulated.requests)
    assert set(live.requests["engine_index"]) == set(simulated.requests["engine_index"]) == {0, 1}
    assert live.run["engine"]["urls"] == [one.url, other.url]


class Started:
    """In the place of vLLM: a fake server for each that the verb starts, which `kill` lets die."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.fakes: list[FakeServer] = []
        self.folders: list[str] = []

    @contextmanager
    def __call__(self, options: ServerOptions, folder: Path, **_: Any) -> Iterator[Server]:
        fake = FakeServer(self._engine)
        self.fakes.append(fake)
        self.folders.append(folder.name)
        with fake.in_thread():
            server = attach(fake.url)
            yield Server(server.url, server.model, server.facts, kill=fake.die_from_outside)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Started:
    made = Started(FakeEngine(16, 901, token_s=0.03))
    monkeypatch.setattr(live_cli, "started", made)
    monkeypatch.setattr(live_cli, "_check_startable", lambda engine, config: None)
    return made


def test_a_server_is_started_for_each_engine_of_a_fleet_and_serves_all_runs(
    folder: Path, run: Run, start: Started
) -> None:
    status, _, told = run("--engine", "cpu", *FLEET, "--no-judge", policies="agent_cap=1..2..1")
    assert status == 0, told
    assert start.folders == ["0", "1"]
    runs = [load_record(path.parent) for path in (folder / "o" / "live").glob("*/run-0/run.json")]
    assert len(runs) == 2
    assert sum(len(fake.served) for fake in start.fakes) == sum(len(record.requests) for record in runs)


def test_an_outage_kills_a_server_in_the_middle_and_every_run_has_new_ones(
    folder: Path, run: Run, start: Started
) -> None:
    outage = ("--set", "fleet.outages=[{engine = 1, at_s = 0.1}]", "--set", "workload.num_agents=12")
    longer = ("--set", "workload.mean_steps=4")  # long enough for the death to be noticed
    status, _, told = run(
        "--engine", "cpu", *FLEET, *outage, *longer, "--no-judge", policies="agent_cap=1..2..1"
    )
    assert status == 0, told
    assert start.folders == ["0", "1", "0", "1"]
    for world in ("live", "sim"):
        for path in (folder / "o" / world).glob("**/run.json"):
            record = load_record(path.parent)
            assert record.is_complete
            assert sorted(record.requests.groupby("agent_index").size().index) == list(range(12))
            assert any("engine 1" in text for text in record.run["warnings"])
            is_up = record.engines.groupby("engine_index")["is_up"].last()
            assert is_up.to_list() == [1, 0]


@pytest.mark.parametrize(
    ("engine", "outage", "said"),
    [
        ("http://127.0.0.1:9,http://127.0.0.1:8", "{engine = 1, at_s = 0.1}", "can be killed"),
        ("cpu", "{engine = 1, at_s = 0.1, until_s = 9.0}", "only the simulator starts engines again"),
    ],
)
def test_outages_that_nobody_can_make_are_refused_before_anything_is_started(
    folder: Path, run: Run, start: Started, engine: str, outage: str, said: str
) -> None:
    status, _, told = run("--engine", engine, *FLEET, "--set", f"fleet.outages=[{outage}]")
    assert status == 2
    assert said in " ".join(told.split())
    assert not start.fakes


def test_a_fleet_needs_as_many_addresses_as_engines(folder: Path, run: Run) -> None:
    status, _, told = run("--engine", "http://127.0.0.1:9", *FLEET)
    assert status != 0
    assert "names 1 servers but the scenario has 2 engines; start as many" in " ".join(told.split())
    assert not (folder / "o" / "live").exists()
