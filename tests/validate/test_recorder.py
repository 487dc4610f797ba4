"""The recorder on vLLM's own schedulers: fed by hand in both modes, in-process, in a server killed hard."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from concur.calib.fit.import_steps import import_steps
from concur.calib.fit.samples import read_samples
from concur.calib.measure.engine import EngineOptions, Finished, VllmEngine
from concur.sim.engine.output import SchedulerOutput
from concur.sim.step_time.step_time import StepBatch
from concur.sim.world.simulate import simulate
from concur.validate.errors import OutOfScopeError
from concur.validate.live.geometries import model_folder
from concur.validate.parity.parity import stepped
from concur.validate.parity.vllm_scheduler import VllmScheduler
from concur.validate.steps.step_log import StepRow, step_spans
from tests.parity.scenarios import corner

pytestmark = pytest.mark.vllm
ENGINE = {
    "block_size": 32,
    "num_gpu_blocks": 256,
    "max_num_batched_tokens": 256,
    "max_num_seqs": 16,
    "max_model_len": 1024,
    "enforce_eager": True,
}


class Noting(VllmScheduler):
    """Keep what the parity harness made of each step, which is proven step-exact."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batches: list[StepBatch] = []
        self.num_credited = 0
        self.num_preempted = 0

    def schedule(self) -> SchedulerOutput:
        output = super().schedule()
        if not output.batch.is_empty:
            self.batches.append(output.batch)
        self.num_preempted += len(output.preempted)
        return output


def as_batch(row: StepRow) -> StepBatch:
    batch = StepBatch()
    for request in row.requests:
        if request.is_decode:
            batch.add_decode(request.num_computed_tokens)
        else:
            batch.add_prefill(request.num_tokens, request.num_computed_tokens, 0)
    return batch


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["preempting", "reusing"])
def test_what_is_recorded_is_what_the_parity_harness_sees(
    name: str, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concur.validate.steps import recorder

    module = f"vllm.v1.core.sched.{'async_scheduler' if is_async else 'scheduler'}"
    cls = recorder.RecordingAsyncScheduler if is_async else recorder.RecordingScheduler
    scenario, workload = corner(name, is_async=is_async)
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{cls.__name__.removeprefix('Recording')}", cls)
        scheduler = Noting(scenario.engine, workload)
    record = simulate(scenario, workload, core=stepped(scenario, scheduler))
    rows = scheduler.vllm.step_log.take()
    assert len(rows) > 100
    assert [as_batch(row) for row in rows] == scheduler.batches
    assert sum(row.num_preemptions for row in rows) == scheduler.num_preempted
    assert sum(row.num_cached_tokens for row in rows) == record.metrics["cached_tokens"]
    assert not rows[-1].is_busy_after
    assert (scheduler.num_preempted > 0) == (name == "preempting")


def test_the_wrong_class_for_the_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from concur.validate.steps import recorder

    scenario, workload = corner("reusing", is_async=True)
    monkeypatch.setattr("vllm.v1.core.sched.async_scheduler.AsyncScheduler", recorder.RecordingScheduler)
    with pytest.raises(OutOfScopeError, match=r"async_scheduling = True .*; use RecordingAsyncScheduler"):
        VllmScheduler(scenario.vllm, workload)


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    engine = VllmEngine(EngineOptions("tiny", **ENGINE))  # type: ignore[arg-type]
    yield engine
    engine.close()


def run_all(engine: VllmEngine) -> list[Finished]:
    finished: list[Finished] = []
    while engine.has_unfinished_requests():
        finished += engine.step()
    return finished


def test_tokens_balance_in_process(engine: VllmEngine) -> None:
    prompts = [list(range(10, 10 + length)) for length in (300, 500, 40, 500)]  # shared beginnings
    begin_s = time.perf_counter()
    for number, prompt in enumerate(prompts):
        engine.submit(f"{number}", prompt, 5)
    finished = run_all(engine)
    end_s = time.perf_counter()
    rows = engine.take_rows()
    assert len(finished) == 4
    num_scheduled = sum(request.num_tokens for row in rows for request in row.requests)
    num_cached = sum(call.num_cached_tokens for call in finished)
    assert num_cached > 500
    num_computed_outputs = 4 * (5 - 1)  # the last token of a request is sampled, never computed
    assert num_scheduled == sum(map(len, prompts)) - num_cached + num_computed_outputs
    assert sum(row.num_cached_tokens for row in rows) == num_cached
    assert sum(request.is_decode for row in rows for request in row.requests) == num_computed_outputs
    assert max(sum(request.num_tokens for request in row.requests) for row in rows) == 256
    assert [row.is_busy_after for row in rows] == [True] * (len(rows) - 1) + [False]
    spans = step_spans(rows, is_async=False)
    busy_s = sum(span.step_s for span in spans) + sum(row.outside_s for row in rows)
    assert busy_s == pytest.approx(rows[-1].end_s - rows[0].begin_s)
    assert 0 < sum(span.step_s for span in spans) < busy_s < end_s - begin_s


def test_what_the_caller_does_between_steps_is_no_engine_time(engine: VllmEngine) -> None:
    engine.submit("slow caller", list(range(10, 50)), 6)
    while engine.has_unfinished_requests():
        engine.step()
        with engine.outside():
            time.sleep(0.05)
    rows = engine.take_rows()
    begins_to_ends_s = rows[-1].end_s - rows[0].begin_s
    assert sum(span.step_s for span in step_spans(rows, is_async=False)) < begins_to_ends_s - 5 * 0.05


def test_facts_are_the_engines_own(engine: VllmEngine) -> None:
    facts = engine.facts
    assert (facts["num_gpu_blocks"], facts["block_size"]) == (256, 32)
    assert (facts["max_num_batched_tokens"], facts["max_num_seqs"]) == (256, 16)
    assert facts["model"]["num_hidden_layers"] == 6
    assert facts["cudagraph_capture_sizes"] == []
    assert "/" not in json.dumps(facts).replace("\\/", "/")  # no path of this machine


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_a_server_records_through_the_dotted_path_and_may_be_killed(tmp_path: Path) -> None:
    folder, port, steps = model_folder("tiny", tmp_path), free_port(), tmp_path / "steps.jsonl.gz"
    options = "--load-format dummy --skip-tokenizer-init --enforce-eager --block-size 32 --max-model-len 1024"
    more = "--num-gpu-blocks-override 64 --scheduler-cls concur.validate.steps.recorder.RecordingScheduler"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
            *f"{options} {more} --no-async-scheduling --host 127.0.0.1 --port {port}".split(),
        ],
        env=os.environ | {"CONCUR_STEPS_FILE": str(steps), "CONCUR_STEPS_PHASE": "run:server"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        prompt = list(range(10, 110))
        body = {"model": str(folder), "prompt": prompt, "max_tokens": 7, "ignore_eos": True}
        for _ in range(2):
            assert len(call(server, port, body)["choices"]) == 1
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    steps_frame = import_steps(steps).steps
    assert set(steps_frame["phase"]) == {"run:server"}
    assert [int(sum(tokens)) for tokens in steps_frame["prefill_tokens"] if len(tokens)] == [100, 4]
    assert sum(map(len, steps_frame["decode_context_tokens"])) == 2 * 6


def call(server: "subprocess.Popen[bytes]", port: int, body: dict[str, Any]) -> dict[str, Any]:
    """Post one completion, waiting until the server is up."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        data=json.dumps({"return_token_ids": True} | body).encode(),
        headers={"Content-Type": "application/json"},
    )
    while True:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(request) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.URLError:
            time.sleep(0.5)


def test_a_short_profile_of_a_real_engine(tmp_path: Path) -> None:
    out, run = tmp_path / "grid.parquet", tmp_path / "run.parquet"
    options = "--block-size 32 --num-gpu-blocks 128 --max-num-batched-tokens 128 --max-num-seqs 8"
    more = "--max-model-len 512 --enforce-eager --repeats 1 --budget-s 20 --run-agents 6 --run-cap 3"
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "calib", "calibrate", "profile", "--model", "tiny"),
            *("--out", str(out), "--record-run", str(run), *f"{options} {more}".split()),
        ],
        check=True,
        capture_output=True,
    )
    grid = read_samples(out)
    assert set(grid.steps["phase"]) == {"prefill", "decode", "mixed"}
    assert grid.provenance.num_gpu_blocks == 128
    assert grid.provenance.host_to_device_bytes_per_s is None
    loop = read_samples(run)
    assert set(loop.steps["phase"]) == {"run:cap3"}
    assert sum(map(len, loop.steps["decode_context_tokens"])) == 6 * 6 * (16 - 1)
    assert sum(loop.steps["step_s"]) <= loop.steps["t_s"].iloc[-1] + loop.steps["step_s"].iloc[-1]
