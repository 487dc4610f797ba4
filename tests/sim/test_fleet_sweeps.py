"""Sweeps over fleets: the same numbers on joblib's workers and on a Ray cluster of several nodes."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import concur, working_folder

SCENARIO = """
[workload]
generator = "react"
num_agents = 6
mean_steps = 3
[engine]
num_gpu_blocks = 601
max_model_len = 8192
[fleet]
num_engines = 2
"""
GRID = """
scenario = "s.toml"
policies = ["none", "agent_cap=2"]
seeds = [0]
[grid]
"fleet.routing" = ["round_robin", "session"]
"fleet.num_engines" = [1, 3]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return working_folder(tmp_path, monkeypatch, {"s.toml": SCENARIO, "g.toml": GRID})


def test_a_fleet_is_swept_like_any_other_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert concur(monkeypatch, "sweep", "g.toml", "--out", "o", "--jobs", "1") == 0
    runs = pd.read_parquet("o/runs.parquet")
    assert len(runs) == 8
    assert sorted(set(zip(runs["fleet.routing"], runs["fleet.num_engines"], strict=True))) == [
        ("round_robin", 1),
        ("round_robin", 3),
        ("session", 1),
        ("session", 3),
    ]
    one = runs[runs["fleet.num_engines"] == 1]
    assert one.groupby("policy")["makespan_s"].nunique().eq(1).all(), "one engine: nowhere else to go"
    assert runs["makespan_s"].nunique() > 4


def test_a_command_shows_a_fleet_engine_by_engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert concur(monkeypatch, "simulate", "s.toml", "--out", "r") == 0
    assert "num_moves: none" in capsys.readouterr().out
    options = ("--controllers", "none", "agent_cap=2", "--out", "o", "--jobs", "1")
    assert concur(monkeypatch, "compare", "s.toml", *options) == 0
    shown = " ".join(capsys.readouterr().out.split())  # a narrow terminal wraps
    assert "mean usage" in shown
    assert re.search(r"num_moves: none \d+, agent_cap=2 \d+", shown)


@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_of_two_nodes_finds_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    assert concur(monkeypatch, "sweep", "g.toml", "--out", "here", "--jobs", "1") == 0
    nodes = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=nodes | {"include_dashboard": False})
    try:
        cluster.add_node(**nodes)
        cluster.wait_for_nodes()
        options = ("--backend", "ray", "--ray-address", cluster.address)
        assert concur(monkeypatch, "sweep", "g.toml", "--out", "there", *options) == 0
    finally:
        cluster.shutdown()
    here, there = (pd.read_parquet(f"{name}/runs.parquet") for name in ("here", "there"))
    own = ["fleet.routing", "fleet.num_engines", "policy", "makespan_s", "hit_rate"]
    assert len(there) == 8
    pd.testing.assert_frame_equal(here[own], there[own])
