"""The packaged examples, by the path that they have below `examples/`."""

from importlib.resources import files
from pathlib import Path

from concur.sim.runs.progress import say


def folder() -> Path:
    """Return where they are: in a checkout, or in the installed package."""
    return Path(str(files("concur"))) / "examples"


def names() -> list[str]:
    """Return the scenarios and grids among them, those at the top first."""
    found = [path.relative_to(folder()).as_posix() for path in folder().rglob("*.toml")]
    return sorted(found, key=lambda name: (name.count("/"), name))


def or_example(path: Path) -> Path:
    """Return a file, or the packaged example of that name where there is no such file."""
    example = folder() / path
    if path.exists() or path.is_absolute() or path.as_posix() not in names():
        return path
    say(f"{path} is not here: the packaged example")
    return example
