"""Copies of this tree, to compile in or to change, and Python that imports from such a copy."""

import shutil
import sys
from pathlib import Path
from typing import Final

from benchmarks.fast import ROOT

_RUN: Final = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
    "sys.argv.pop(1); runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def copy_tree(tree: Path) -> None:
    """Copy the sources to that new folder, without what was compiled and without what runs have left."""
    shutil.copytree(ROOT, tree, symlinks=True, ignore=_ignored)


def python_in(tree: Path, *arguments: str) -> list[str]:
    """Return the command `python ARGUMENTS`, `-m` first, with that tree in place of the installed package.

    It is to be run in the tree, with `PYTHONPATH` set to it for the processes that it starts.
    """
    return [sys.executable, "-W", "ignore", "-c", _RUN, str(tree), *arguments]


def _ignored(folder: str, names: list[str]) -> set[str]:
    """Leave out what is no source: hidden folders, what was compiled, and at the top what runs have left."""
    at_top = {"build", "runs"} if Path(folder) == ROOT else set()
    return {
        name
        for name in names
        if name.startswith(".") or name in at_top or name == "__pycache__" or name.endswith(".so")
    }
