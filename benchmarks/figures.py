"""`make figures`: draw the pages' figures again from the committed results, without a simulation.

PNG at 300 dpi for the pages, and beside it PDF with text as text for a paper. The figure of the README needs
records, not only results: `concur compare examples/react.toml`, then `overview` of its report. The paper's
figures are `concur paper`'s.
"""

import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks import fleets, offload_study, tree_knee, twin_fidelity
from benchmarks.result_files import ROOT, read
from concur.sim.show.figures import style

FIGURES: Final[Mapping[str, Callable[[Any], Figure]]] = {
    "fleets": fleets.figure,
    "offload": offload_study.figure,
    "trees": tree_knee.figure,
    "twin_fidelity": twin_fidelity.draw,
}
"""Names of files in `examples`, and in `examples/results`, and what draws them."""


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as `path` and, for a paper, with the suffix `.pdf`; without a date, to be repeatable."""
    figure.savefig(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    path.with_suffix(".pdf").write_bytes(buffer.getvalue())


def main() -> None:
    """Draw all of them, or those named."""
    for name in sys.argv[1:] or FIGURES:
        with style():
            write_figure(FIGURES[name](read(name)), ROOT / "examples" / f"{name}.png")
        print(f"examples/{name}.png and .pdf")


if __name__ == "__main__":
    main()
