"""What the packages show: names that are there, and that cost nothing until they are used."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import concur
from concur import sim

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("package", ["concur", "sim"])
def test_every_name_that_a_package_shows_is_there(package: str) -> None:
    face = import_module(package)
    for name in face.__all__:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = face.nothing


def test_the_faces_are_the_very_objects() -> None:
    assert concur.AsyncGate is import_module("concur.live.gate").AsyncGate
    assert concur.__version__ == version("concur-admission")
    assert sim.simulate is import_module("concur.sim.world.simulate").simulate


def test_a_law_and_a_gate_load_no_more_than_the_standard_library() -> None:
    code = (
        "import sys, concur\n"
        "concur.make_gate('none', 4); concur.make_controller('hybrid'); concur.AsyncGate\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    command = [sys.executable, "-S", "-c", code]  # without site-packages
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) <= {"concur", "__main__"}
