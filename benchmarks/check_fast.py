"""`make test-fast`: the compiled form does what the sources do, byte for byte, and passes the engine's tests.

It is made in a copy of this tree, so that nothing here changes. Records of all parity scenarios and of random
worlds are compared between both forms; tests that replace a part of what is compiled are left out.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.copies import copy_tree, python_in
from benchmarks.digests import FORM
from benchmarks.fast import why_not

TESTS: Final = (
    "tests/sim/test_engine_core.py",
    "tests/sim/test_fast_equals_reference.py",
    "tests/sim/test_sglang_fast.py",
    "tests/sim/test_driver.py",
    "tests/sim/test_compare.py",
    "tests/laws/test_families.py",
    "tests/theory",
)


def main() -> int:
    """Run the check; return its exit status."""
    problem = why_not()
    if problem is not None:
        print(f"not checked: {problem}", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        copy_tree(tree)
        plain = _digests(tree)
        if _run(tree, "-m", "benchmarks.fast"):
            return 1
        compiled = _digests(tree)
        forms = plain.pop(FORM), compiled.pop(FORM)
        if forms[0] != ".py" or forms[1] == ".py":
            print(f"both forms must run, but {forms[0]} and {forms[1]} did", file=sys.stderr)
            return 1
        differing = [name for name in plain if plain[name] != compiled[name]]
        print(f"{len(plain)} records: {len(differing)} differ between sources and compiled form")
        if differing or plain.keys() != compiled.keys():
            print(f"the first: {differing[:1]}", file=sys.stderr)
            return 1
        return _run(tree, "-m", "pytest", "-q", "-n", "auto", *TESTS)


def _digests(tree: Path) -> dict[str, str]:
    """Return the SHA-256 of each record, made in a process that imports from that tree."""
    path, worlds = tree / "digests.json", tree / "worlds.pickle"
    if _run(tree, "-m", "benchmarks.digests", str(path), str(worlds)):
        raise RuntimeError("the records could not be made")
    digests: dict[str, str] = json.loads(path.read_text())
    return digests


def _run(tree: Path, *arguments: str) -> int:
    """Run Python with that tree in the place of the installed package."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    return subprocess.run(python_in(tree, *arguments), cwd=tree, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
