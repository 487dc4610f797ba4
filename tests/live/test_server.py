"""A real vLLM server: it is started, used, reset and stopped, and its counts are those of the record."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from concur.live.metric_names import CAPACITY, VLLM
from concur.live.scrape import detect_names
from concur.signals import COUNTERS, GAUGES
from concur.sim.engine.config import EngineConfig
from concur.sim.scenario.scenario import Scenario
from concur.sim.workload.spec import Workload
from concur.validate.confront.same_engine import check_server
from concur.validate.errors import ServerError
from concur.validate.live.account import account
from concur.validate.live.replay import exit_status, replay
from concur.validate.live.server import FLAGS, Server, ServerOptions, attach, server_flags, started, stop
from concur.validate.live.server_log import explain_end, last_line
from tests.helpers import make_agent, make_scenario, make_workload

ENGINE = EngineConfig(
    block_size=32, num_gpu_blocks=65, max_model_len=1024, max_num_seqs=16, max_num_batched_tokens=512
)
INSTANTS = ("ready_s", "submitted_s", "scheduled_s", "first_token_s", "finished_s")


def test_flags_are_vllms_own() -> None:
    flags = server_flags(ServerOptions(model="tiny", engine=ENGINE, steps_file=Path("steps.jsonl")))
    assert flags[flags.index("--num-gpu-blocks-override") + 1] == "65"
    assert "--no-async-scheduling" in flags
    assert "concur.validate.steps.recorder.RecordingScheduler" in flags


def test_a_server_that_cannot_start_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'no such device' >&2\nexit 3\n")
    script.chmod(0o755)
    options = ServerOptions(model="tiny", engine=ENGINE, python=str(script))
    with (
        pytest.raises(ServerError, match=r"(?s)ended before it was ready.*no such device"),
        started(options, tmp_path),
    ):
        pass
    assert "no such device" in (tmp_path / "server.log").read_text(), "the log is kept"


def test_a_server_that_ends_is_explained_by_the_first_of_its_exceptions(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "(APIServer pid=1) WARNING 11-26 04:27:50 [a.py:2] such as `OSError: [Errno 24]`\n"
        "(EngineCore pid=2) ERROR 11-26 04:29:34 [core.py:1] ValueError: the pool is too small\n"
        "    raise RuntimeError(\nRuntimeError: see root cause above\n\n"
    )
    assert explain_end(log) == f"ValueError: the pool is too small (more in {log})"
    assert last_line(log) == "RuntimeError: see root cause above"
    log.write_text("one\ntwo\n")
    assert explain_end(log) == f"the end of {log}:\none\ntwo"
    log.write_text("")
    assert last_line(log) == ""


def test_a_server_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    script.chmod(0o755)
    options = ServerOptions(model="tiny", engine=ENGINE, python=str(script), start_s=0.5)
    with pytest.raises(ServerError, match="not ready after"), started(options, tmp_path):
        pass
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_model_that_is_none_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="neither a folder"),
        started(ServerOptions(model="no-such", engine=ENGINE), tmp_path / "logs"),
    ):
        pass


def test_nothing_to_attach_to_is_a_clear_error() -> None:
    with pytest.raises(ServerError, match="no vLLM server answers there"):
        attach("http://127.0.0.1:9")


def test_stopping_twice_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stop(process)
    stop(process)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("server")
    steps = folder / "steps.jsonl.gz"
    options = ServerOptions(model="tiny", engine=ENGINE, steps_file=steps, extra=("--enforce-eager",))
    with started(options, folder) as server:
        yield server, steps
    with pytest.raises(ServerError):
        attach(server.url)


def vllm_scenario(**controller: object) -> Scenario:
    return make_scenario(
        engine=ENGINE.model_dump(exclude={"host_cache"}),
        controller={"interval_s": 0.2} | controller,
        record={"timeline_interval_s": 0.1},
    )


def vllm_workload() -> Workload:
    return make_workload(
        *(
            make_agent(index, [(150, 12), (60, 12), (60, 12)], wait_s=0.05, group="team", shared=96)
            for index in range(6)
        )
    )


def metrics_text(server: Server) -> str:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        text: str = response.read().decode()
        return text


@pytest.mark.vllm
def test_the_names_of_the_table_are_those_of_the_live_server(served: tuple[Server, Path]) -> None:
    text = metrics_text(served[0])
    assert detect_names(text) is VLLM
    for field in (*GAUGES, *COUNTERS, *CAPACITY):
        assert f"{VLLM.series[field].name}{{" in text


@pytest.mark.vllm
@pytest.mark.parametrize("controller", [{"kind": "none"}, {"kind": "agent_cap", "cap": 2}])
def test_a_live_run_counts_what_the_engine_counts(
    served: tuple[Server, Path], controller: dict[str, object]
) -> None:
    server, workload = served[0], vllm_workload()
    server.reset_prefix_cache()
    record = replay(vllm_scenario(**controller), workload, server)
    assert record.run["warnings"] == []
    assert exit_status(record) == 0
    assert len(record.requests) == 18
    specs = {(agent.index, n): step for agent in workload.agents for n, step in enumerate(agent.steps)}
    for call in record.requests.to_dict("records"):
        step = specs[call["agent_index"], call["call_index"]]
        assert (call["prompt_tokens"], call["output_tokens"]) == (step.prompt_tokens, step.output_tokens)
        instants = [call[name] for name in INSTANTS]
        assert instants == sorted(instants)
    assert record.requests["cached_tokens"].sum() > 0
    last, metrics = record.timeline.iloc[-1], record.metrics
    assert last["prompt_tokens"] == metrics["prompt_tokens"]
    assert last["generation_tokens"] == metrics["generated_tokens"]
    assert record.run["foreign_tokens"] == {"prompt": 0, "generated": 0}
    if metrics["num_preemptions"] == 0:
        assert last["prefix_cache_queries_tokens"] == metrics["prompt_tokens"]
        assert last["prefix_cache_hits_tokens"] == metrics["cached_tokens"]
        told_nothing = record.requests.assign(cached_tokens=None).astype({"cached_tokens": "Int64"})
        counted = account(told_nothing, record.timeline, is_once=True).cache_metrics()
        assert counted == {name: metrics[name] for name in ("cached_tokens", "hit_rate")}
    assert (record.run["engine"]["num_gpu_blocks"], record.run["engine"]["block_size"]) == (65, 32)
    if "cap" in controller:
        assert record.timeline["num_requests_running"].max() <= 2
        assert metrics["hit_rate"] == metrics["ideal_hit_rate"], "two agents fit: the cache loses nothing"


@pytest.mark.vllm
def test_a_reset_cache_is_cold(served: tuple[Server, Path]) -> None:
    server, workload = served[0], make_workload(make_agent(0, [(200, 4)]))
    server.reset_prefix_cache()
    scenario = vllm_scenario(kind="none")
    cold, warm = (replay(scenario, workload, server).metrics["cached_tokens"] for _ in range(2))
    server.reset_prefix_cache()
    again = replay(scenario, workload, server).metrics["cached_tokens"]
    assert (cold, warm, again) == (0, 192, 0)


@pytest.mark.vllm
def test_steps_are_recorded_and_facts_are_the_engines(served: tuple[Server, Path]) -> None:
    server, steps = served
    replay(vllm_scenario(kind="none"), make_workload(make_agent(0, [(100, 3)])), server)
    time.sleep(1.5)  # the recorder flushes when idle, at least every second
    assert steps.stat().st_size > 0
    assert server.facts["vllm"].startswith("0.")
    check_server(vllm_scenario(kind="none"), vllm_workload(), server)
    assert set(FLAGS) <= set(server.facts), "everything that decides is known of a server that we started"
    assert (server.facts["max_num_seqs"], server.facts["max_num_batched_tokens"]) == (16, 512)
    assert "/" not in json.dumps(server.facts), "no path of this machine"
