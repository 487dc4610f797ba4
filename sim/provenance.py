"""Where a result came from."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

VLLM_SEMANTICS: Final = "0.32.0"
"""The vLLM release whose scheduling and caching the simulated engine follows."""


def versions() -> dict[str, str]:
    """Return the versions that decide a simulated run's numbers and bytes."""
    packages = ("numpy", "pandas", "pyarrow", "simpy")
    return {
        "concur": version("concur-admission"),
        "python": platform.python_version(),
        "vllm_semantics": VLLM_SEMANTICS,
        **{name: version(name) for name in packages},
    }


@cache
def git_commit() -> str | None:
    """Return the commit of the source tree, with `+` if it has changes; `None` outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
