"""`make fast`: compile the modules in which a simulation spends its time, in place, from the same sources.

mypyc turns them into C by their annotations, and the C compiler into modules that Python prefers to the
sources beside them. Two things in those sources are there for it: classes that a core consists of are marked
as serializable, or a compiled core could not be copied; and the hot ones have constructors of their own, for
those that `dataclass` makes stay interpreted.

Without a compiler everything works as before, at a third to half of the speed. `make slow` removes what was
compiled; a changed source needs `make fast` again.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
BUILD: Final = ROOT / "build"
GROUP: Final = "concur.compiled"
MODULES: Final = (
    "concur/sim/engine/core.py",
    "concur/sim/engine/host_link.py",
    "concur/sim/engine/offload/core.py",
    "concur/sim/engine/offload/scheduler.py",
    "concur/sim/engine/offload/transfers.py",
    "concur/sim/engine/output.py",
    "concur/sim/engine/request.py",
    "concur/sim/engine/sglang/core.py",
    "concur/sim/engine/sglang/fast.py",
    "concur/sim/engine/sglang/hicache_core.py",
    "concur/sim/engine/sglang/leap.py",
    "concur/sim/engine/sglang/output.py",
    "concur/sim/engine/sglang/policy.py",
    "concur/sim/engine/sglang/prefill_adder.py",
    "concur/sim/engine/sglang/ratio.py",
    "concur/sim/engine/sglang/req.py",
    "concur/sim/engine/sglang/scheduler.py",
    "concur/sim/engine/sglang/signals.py",
    "concur/sim/engine/sglang/slots.py",
    "concur/sim/engine/sglang/transfers.py",
    "concur/sim/engine/sglang/v058.py",
    "concur/sim/engine/stepping.py",
    "concur/sim/engine/vllm/decodes.py",
    "concur/sim/engine/vllm/fast.py",
    "concur/sim/engine/vllm/hybrid.py",
    "concur/sim/engine/vllm/leap.py",
    "concur/sim/engine/vllm/policy.py",
    "concur/sim/engine/vllm/scheduler.py",
    "concur/sim/kv/cache.py",
    "concur/sim/kv/hiradix.py",
    "concur/sim/kv/history.py",
    "concur/sim/kv/host_jobs.py",
    "concur/sim/kv/radix.py",
    "concur/sim/kv/segments.py",
    "concur/sim/step_time/roofline.py",
    "concur/sim/step_time/step_time.py",
    "concur/sim/world/agent.py",
    "concur/sim/world/engine.py",
)
"""What is compiled: engine, cache, step time, and who speaks to them on the simulated clock."""


def main(arguments: Sequence[str]) -> int:
    """Compile, or with `clean` remove what was compiled; return the exit status."""
    clean()
    if list(arguments) == ["clean"]:
        print("the sources run as they are")
        return 0
    problem = why_not()
    if problem is not None:
        print(f"not compiled: {problem}; everything works, at a third to half of the speed", file=sys.stderr)
        return 0
    compile_in_place()
    print(f"{len(MODULES)} modules are compiled, in {ROOT / 'concur'} and below; `make slow` removes them")
    return 0


def why_not() -> str | None:
    """Return what is missing to compile, `None` if nothing is."""
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return "there is no C compiler (cc, gcc or clang)"
    try:
        import mypyc.build  # noqa: F401
    except ImportError:
        return "mypy is not installed here; pip install mypy"
    return None


def compile_in_place() -> None:
    """Build the modules beside their sources."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    options = ["--ignore-missing-imports", "--follow-imports=silent"]
    extensions = mypycify(
        [*options, *MODULES], opt_level="3", debug_level="0", group_name=GROUP, target_dir=str(BUILD)
    )
    command = Distribution({"name": "concur", "ext_modules": extensions}).get_command_obj("build_ext")
    command.inplace = True
    command.build_temp = str(BUILD)
    command.ensure_finalized()
    command.run()


def compiled_files() -> Iterator[Path]:
    """Yield what was compiled before."""
    for package in ("concur", "sim"):
        yield from (path for path in (ROOT / package).rglob("*") if path.suffix in (".so", ".pyd"))


def clean() -> None:
    """Remove what was compiled before."""
    for path in compiled_files():
        path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
