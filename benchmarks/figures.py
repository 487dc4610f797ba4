"""`make figures`: draw the pages' figures again from the committed results, without a simulation.

PNG at 300 dpi for the pages, and beside it PDF with text as text for a paper. The figure of the README needs
records, not only results: `concur compare examples/react.toml`, then `overview` of its report. The paper's
figures are `concur paper`'s.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks import fleets, offload_study, tree_knee, twin_fidelity
from benchmarks.result_files import ROOT, read
from concur.sim.show.figures import style, write_figure

FIGURES: Final[Mapping[str, Callable[[Any], Figure]]] = {
    "fleets": fleets.figure,
    "offload": offload_study.figure,
    "trees": tree_knee.figure,
    "twin_fidelity": twin_fidelity.draw,
}
"""Names of files in `examples`, and in `examples/results`, and what draws them."""


def main() -> None:
    """Draw all of them, or those named."""
    for name in sys.argv[1:] or FIGURES:
        with style():
            write_figure(FIGURES[name](read(name)), ROOT / "examples" / f"{name}.png")
        print(f"examples/{name}.png and .pdf")


if __name__ == "__main__":
    main()
