"""Laws and generators from packages that are installed beside the project, found by their entry points."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest.mock import patch

import pytest

from concur.catalog import Catalog
from concur.controllers import CATALOG
from concur.errors import ParameterError
from concur.sim.workload.generators import GENERATORS

CODE = '''
from dataclasses import dataclass

from concur import ControllerSpec
from concur.controllers import ControllerParams
from concur.sim.workload.generators import Generator
from concur.sim.workload.spec import StepSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HalvesParams(ControllerParams):
    start: int = 8
    interval_s: float = 2.0


class Halves:
    """Half as many agents at every decision, never fewer than two."""

    reads_agents = False

    def __init__(self, params):
        self.interval_s = params.interval_s
        self.window = params.start

    def update(self, snapshot, *, active):
        self.window = max(2, self.window // 2)
        return self.window

    def log_state(self):
        return {}


class Twins(Generator):
    """Every agent makes the same two calls."""

    length: int = 100

    def draw_steps(self, rng):
        return (StepSpec(0, self.length, 10, 1.0), StepSpec(self.length + 10, self.length, 10, 1.0))


HALVES = ControllerSpec(HalvesParams, Halves)
'''
POINTS = """[concur.controllers]
halves = outside:HALVES
twins = outside:Twins
gone = outside:Gone
none = outside:HALVES

[concur.generators]
twins = outside:Twins
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with a package as an installation leaves it."""
    information = tmp_path / "outside-1.2.dist-info"
    information.mkdir()
    (tmp_path / "outside.py").write_text(CODE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.2\n")
    (information / "entry_points.txt").write_text(POINTS)
    return tmp_path


def concur(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "concur.cli", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(path), str(Path(__file__).parents[2])))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_law_and_a_generator_of_another_package_run_by_name(outside: Path) -> None:
    scenario = outside / "scenario.toml"
    scenario.write_text(
        '[workload]\ngenerator = "twins"\nlength = 200\nnum_agents = 12\n'
        '[controller]\nkind = "halves"\nstart = 6\n[engine]\nnum_gpu_blocks = 1000\n'
    )
    finished = concur("simulate", str(scenario), "--out", str(outside / "run"), path=outside)
    assert finished.returncode == 0, finished.stderr
    run = json.loads((outside / "run" / "run.json").read_text())
    assert run["versions"]["outside"] == "1.2", "what made it is on record"
    assert run["scenario"]["controller"]["parameters"] == {"start": 6, "interval_s": 2.0}
    assert run["metrics"]["prompt_tokens"] == 12 * (200 + 410)
    compared = concur("compare", str(scenario), "--controllers", "agent_cap=2", "halves", path=outside)
    assert compared.returncode == 0, compared.stderr
    assert "halves" in compared.stdout


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("twins", "kind = 'twins' of outside 1.2 (outside:Twins) is <class 'outside.Twins'> but must be a "),
        ("gone", "kind = 'gone' of outside 1.2 (outside:Gone) cannot be loaded: AttributeError: "),
        ("none", "kind = 'none' is ambiguous: concur and outside 1.2 have one; "),
        ("nobody", "kind = 'nobody' but must be one of none, request_cap, "),
    ],
)
def test_what_is_wrong_with_another_package_is_one_line(outside: Path, kind: str, problem: str) -> None:
    scenario = outside / "scenario.toml"
    scenario.write_text(
        f'[workload]\ngenerator = "react"\nnum_agents = 1\n[controller]\nkind = "{kind}"\n'
        "[engine]\nnum_gpu_blocks = 1000\n"
    )
    finished = concur("simulate", str(scenario), path=outside)
    assert finished.returncode == 2, finished.stderr
    assert problem in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.fixture
def catalog() -> Iterator[Catalog[int]]:
    points = [EntryPoint("five", "builtins:int", "numbers"), EntryPoint("two", "builtins:dict", "numbers")]
    with patch("concur.catalog.entry_points", return_value=points):
        yield Catalog("numbers", {"two": 2, "one": 1}, what="number", fits=callable, holds="a number")


def test_names_are_known_before_anything_is_loaded(catalog: Catalog[int]) -> None:
    assert list(catalog) == ["two", "one", "five"], "our own first, in their order"
    assert len(catalog) == 3
    assert "five" in catalog
    assert "six" not in catalog
    assert catalog["one"] == 1


def test_a_name_that_is_taken_is_nobodys(catalog: Catalog[int]) -> None:
    with pytest.raises(ParameterError, match="'two' is ambiguous"):
        catalog["two"]


def test_our_own_are_of_no_other_package() -> None:
    assert {CATALOG.package(kind) for kind in CATALOG} == {None}
    assert {GENERATORS.package(name) for name in GENERATORS} == {None}
