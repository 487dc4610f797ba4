"""`make notebooks`: run the notebooks and store what their cells show, to be seen without running them.

What a widget shows is stored with its cell, as it looks before anybody turns a knob. `tests/notebooks` runs
them again and holds the stored outputs to what comes out.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

ROOT: Final = Path(__file__).resolve().parents[1]
NOTEBOOKS: Final = sorted((ROOT / "notebooks").glob("*.ipynb"))
KEPT: Final = ("image/png", "text/html", "text/plain")
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{6,}")

Notebook = Any


def read(path: Path) -> Notebook:
    """Return a notebook as it is stored."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(notebook: Notebook) -> list[Any]:
    """Return the cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


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


def shown(cell: Any) -> Iterator[dict[str, Any]]:
    """Yield what a cell shows, without what is of the kernel or the machine that ran it."""
    for output in cell.outputs:
        kind = output["output_type"]
        if kind == "stream":
            yield {"output_type": kind, "name": output["name"], "text": _plain(output["text"])}
        elif kind in ("display_data", "execute_result"):
            data = {name: _plain(output["data"][name]) for name in KEPT if name in output["data"]}
            yield {"output_type": "display_data", "data": data, "metadata": {}}
        else:
            yield dict(output)


def store(notebook: Notebook) -> None:
    """Put in the place of each cell's outputs what is to be kept of them."""
    for number, cell in enumerate(code_cells(notebook), 1):
        cell.outputs = [nbformat.from_dict(each) for each in shown(cell)]  # type: ignore[no-untyped-call]
        cell.execution_count = number
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = nbformat.from_dict({"name": "python"})  # type: ignore[no-untyped-call]


def _plain(text: str) -> str:
    return _ADDRESS.sub("0x...", text).replace(f"{ROOT}/", "")


def main() -> None:
    """Run all notebooks, or those whose names begin with a word of the command line, and write them."""
    chosen = [path for path in NOTEBOOKS if not sys.argv[1:] or path.name.startswith(tuple(sys.argv[1:]))]
    for path in chosen:
        notebook = read(path)
        execute(notebook, path.parent)
        store(notebook)
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
        print(path.name, flush=True)


if __name__ == "__main__":
    main()
