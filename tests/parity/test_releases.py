"""Releases of vLLM: what differs between them, and how one is laid over an environment."""

import zipfile
from pathlib import Path

import pytest

from benchmarks.releases import WHEELS, line, unpack
from concur.sim.engine.config import RELEASES
from concur.sim.world.simulate import simulate
from tests.helpers import make_agent, make_scenario, make_workload


def num_steps(release: str, *, num_agents: int = 1) -> int:
    scenario = make_scenario(engine={"long_prefill_token_threshold": 100, "release": release})
    agents = make_workload(*(make_agent(number, [(1000, 10)]) for number in range(num_agents)))
    return int(simulate(scenario, agents).metrics["num_engine_steps"])


@pytest.mark.parametrize(("release", "steps"), [("0.24", 19), ("0.30", 19), ("0.31", 10), ("0.33", 10)])
def test_up_to_0_30_a_request_that_is_alone_is_capped_too(release: str, steps: int) -> None:
    """A prompt of 1,000 tokens by 100, or at once; then nine more (`v1/core/sched/scheduler.py`)."""
    assert num_steps(release) == steps


def test_with_company_all_releases_cap() -> None:
    assert len({num_steps(release, num_agents=2) for release in RELEASES}) == 1


def test_every_release_of_a_scenario_is_compared() -> None:
    assert tuple(WHEELS) == RELEASES


@pytest.mark.parametrize("with_libraries", [True, False])
def test_a_wheel_for_a_gpu_is_unpacked_without_its_libraries(tmp_path: Path, with_libraries: bool) -> None:
    archive = tmp_path / "vllm-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("vllm/__init__.py", "")
        wheel.writestr("vllm/_C.abi3.so", "")
        wheel.writestr("vllm-1.0.dist-info/METADATA", "Name: vllm\nVersion: 1.0\nSummary: s\n")
    unpack(archive, tmp_path / "out", with_libraries=with_libraries)
    assert (tmp_path / "out" / "vllm" / "_C.abi3.so").exists() is with_libraries
    metadata = (tmp_path / "out" / "vllm-1.0.dist-info" / "METADATA").read_text()
    assert ("Version: 1.0+cpu\n" in metadata) is not with_libraries


def test_the_matrix_says_what_differs_and_what_could_not_be_compared() -> None:
    covered = {"num_steps": 1000, "num_preemptions": 7}
    answer = {"identical": False, "num_worlds": 3, "coverage": covered, "vllm_version": "0.24.0"}
    assert line("0.24", "plain", answer) == (
        "0.24  plain     DIFFERS  3 worlds, 1,000 steps, 7 preemptions, vLLM 0.24.0"
    )
    assert "not compared: ['no vLLM']" in line("0.24", "plain", {"error": ["no vLLM"]})
