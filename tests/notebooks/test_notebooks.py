"""The notebooks: committed clean, free of algorithms, and each one runs from its first cell to its last.

The dangers: a notebook that broke when the code moved on and nobody opened it; outputs of somebody's machine
in the repository; and an error inside a widget, which Jupyter shows in red and calls a success.
"""

import ast
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["01_thrashing", "02_explore_policies", "03_calibrate_on_a_gpu_box", "04_confirm_live"]
MAY_IMPORT = {"concur", "ipywidgets", "matplotlib", "os", "pandas", "pathlib"}
MOST_CELLS = 30
MOST_LINES_OF_A_DEFINITION = 15  # what is longer belongs into a package, and gets a test there
NUM_FIGURES = {
    "01_thrashing": 3,
    "02_explore_policies": 5,
    "03_calibrate_on_a_gpu_box": 3,
    "04_confirm_live": 2,
}

Notebook = Any


def read(path: Path) -> Notebook:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(notebook: Notebook) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parsed(cell: Any) -> ast.Module:
    return ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))


def execute(notebook: Notebook, folder: Path) -> list[Any]:
    """Run every cell with the kernel of this interpreter; return what all cells and widgets showed."""
    client = NotebookClient(
        notebook, timeout=300, shutdown_kernel="immediate", resources={"metadata": {"path": str(folder)}}
    )
    kernel = client.create_kernel_manager()
    kernel.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])  # no kernel that the user has installed
    client.comm_open_handlers.clear()  # what a widget shows stays with its cell, errors too
    client.execute()
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_the_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_committed_clean_and_short(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert 10 <= len(notebook.cells) <= MOST_CELLS
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_to_its_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the root or from its own folder, by turns; on this interpreter; with nothing of the user's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLCONFIGDIR", mpl.get_configdir())  # its list of fonts takes seconds to make
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("CONCUR_ENGINE_URL", raising=False)
    notebook = read(path)
    shown = execute(notebook, (ROOT, path.parent)[NOTEBOOKS.index(path) % 2])
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert [output for output in shown if output["output_type"] == "error"] == []
    assert [output["text"] for output in shown if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in shown) == NUM_FIGURES[path.stem]
    assert any("concur-table" in output.get("data", {}).get("text/html", "") for output in shown)
