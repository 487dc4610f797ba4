"""Where a result came from."""

import platform
import subprocess
from functools import cache
from hashlib import sha256
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
    """Return the commit of the source tree; if it has changes, `+` and eight digits of their SHA-256.

    `None` outside a checkout.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # an installed package may lie in somebody else's checkout
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "diff", "HEAD")
        return commit + (f"+{sha256(changes.encode()).hexdigest()[:8]}" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def short_commit(commit: str | None) -> str:
    """Return what people need of a commit: nine digits, and four of its changes where there are any."""
    head, plus, changes = (commit or "unknown").partition("+")
    return head[:9] + plus + changes[:4]


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
