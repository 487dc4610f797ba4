"""The notebooks: free of algorithms, each runs from its first cell to its last, and shows what is stored.

The dangers: a notebook that broke when the code moved on and nobody opened it; outputs of an earlier state or
of somebody's machine in the repository; and an error inside a widget, which Jupyter shows in red and calls a
success.
"""

import ast
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest

from benchmarks.notebooks import NOTEBOOKS, ROOT, code_cells, execute, read, shown

NAMES = [
    "01_thrashing",
    "02_explore_policies",
    "03_calibrate_on_a_gpu_box",
    "04_confirm_live",
    "05_recompute_or_reload",
]
MAY_IMPORT = {"concur", "ipywidgets", "matplotlib", "os", "pandas", "pathlib"}
MOST_CELLS = 30
MOST_LINES_OF_A_DEFINITION = 15  # what is longer belongs into a package, and gets a test there
NUM_FIGURES = {
    "01_thrashing": 3,
    "02_explore_policies": 6,
    "03_calibrate_on_a_gpu_box": 3,
    "04_confirm_live": 2,
    "05_recompute_or_reload": 4,
}

MOST_BYTES = 600_000
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
ON_A_CLOCK = {"04_confirm_live"}  # its server answers in real time: no number of it comes out twice
TOLERANCE = 0.01  # of a number: fits and wall clocks of another machine


def parsed(cell: Any) -> ast.Module:
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))


def words_and_numbers(text: str) -> tuple[list[str], list[float]]:
    """Split a text at its numbers, blanks and a table's rules left out: a wider number moves them."""
    parts = NUMBER.split(re.sub(r"[\s\u2500-\u257f-]+", " ", text))
    return [part.strip() for part in parts], [
        float(number.replace(",", "")) for number in NUMBER.findall(text)
    ]


def texts(cell: Any) -> list[str]:
    """Return all text that a cell shows; of what has a picture or a table, that and not its name."""
    found = []
    for output in shown(cell):
        data = output.get("data", {})
        found.append(output.get("text") or data.get("text/html") or data.get("text/plain", ""))
    return [
        "" if "image/png" in output.get("data", {}) else text
        for output, text in zip(shown(cell), found, strict=True)
    ]


def test_the_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_short_and_its_outputs_are_stored_and_nothing_else(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    assert 10 <= len(notebook.cells) <= MOST_CELLS
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert list(shown(cell)) == [dict(output) for output in cell.outputs], (
            "what is of a machine is left out"
        )
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == NUM_FIGURES[path.stem]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert not [text for cell in cells for text in texts(cell) if re.search(r"/(home|root|tmp|work)/", text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_chooses_and_arranges_and_does_not_compute(path: Path) -> None:
    trees = [parsed(cell) for cell in code_cells(read(path))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert {module.partition(".")[0] for module in modules} <= MAY_IMPORT
    assert any(module.startswith("concur.sim") for module in modules)
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert len(ast.unparse(node).splitlines()) <= MOST_LINES_OF_A_DEFINITION


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_to_its_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the root or from its own folder, by turns; on this interpreter; with nothing of the user's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLCONFIGDIR", mpl.get_configdir())  # its list of fonts takes seconds to make
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("CONCUR_ENGINE_URL", raising=False)
    stored, notebook = read(path), read(path)
    found = execute(notebook, (ROOT, path.parent)[NOTEBOOKS.index(path) % 2])
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert [output for output in found if output["output_type"] == "error"] == []
    assert [output["text"] for output in found if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in found) == NUM_FIGURES[path.stem]
    assert any("concur-table" in output.get("data", {}).get("text/html", "") for output in found)
    for old, new in zip(code_cells(stored), code_cells(notebook), strict=True):
        if path.stem in ON_A_CLOCK:
            assert len(texts(old)) == len(texts(new))
        else:
            assert_same_texts(texts(old), texts(new))


def assert_same_texts(stored: list[str], found: list[str]) -> None:
    """Hold what was stored to what came out: the same words, and numbers within the tolerance."""
    assert len(found) == len(stored), "make notebooks stores them again"
    for old, new in zip(stored, found, strict=True):
        old_words, old_numbers = words_and_numbers(old)
        new_words, new_numbers = words_and_numbers(new)
        assert new_words == old_words, "make notebooks stores them again"
        assert new_numbers == pytest.approx(old_numbers, rel=TOLERANCE, abs=0.011)


def test_texts_are_the_same_in_words_and_nearly_in_numbers() -> None:
    assert_same_texts(["makespan 1,000.0 s"], ["makespan  1,001.0 s"])
    for other in ("makespan 1,100.0 s", "made in 1,000.0 s"):
        with pytest.raises(AssertionError):
            assert_same_texts(["makespan 1,000.0 s"], [other])
