"""Figures for people and papers: no legend hides data, PNGs have 300 dpi, text in a PDF is text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib import image
from matplotlib.figure import Figure

from benchmarks.figures import FIGURES
from benchmarks.result_files import read
from concur.sim.scenario.policy_texts import parse_controllers
from concur.sim.show.decisions import decisions_figure
from concur.sim.show.figures import (
    cap_curve_figure,
    overview_figure,
    style,
    time_split_figure,
    timeline_figure,
    write_figure,
)
from concur.sim.world.simulate import simulate
from concur.validate.confront.overlay import over_time_figure
from tests.helpers import ROOT, make_scenario

TIGHT = {"engine": {"num_gpu_blocks": 601}, "workload": {"num_agents": 8}}


def legends_inside(figure: Figure) -> Iterator[str]:
    """Yield the axes that their own legend, or the figure's, covers by more than a pixel."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        box = ax.get_window_extent()
        own = ax.get_legend()
        for legend in [*([own] if own is not None else []), *figure.legends]:
            over = box.intersection(box, legend.get_window_extent())
            if over is not None and over.width > 1 and over.height > 1:
                yield ax.get_ylabel() or ax.get_xlabel()


def figures() -> Iterator[Figure]:
    scenario = make_scenario(**TIGHT)
    texts = ("none", "agent_cap=2,4", "hybrid")
    chosen = [each for text in texts for each in parse_controllers(text, scenario.controller)]
    records = [simulate(scenario.with_controller(each)) for each in chosen]
    yield from (overview_figure(records), cap_curve_figure(records), time_split_figure(records))
    yield from (timeline_figure(records[-1]), decisions_figure(records[-1], values=["fit"]))
    yield over_time_figure("none", records[0], [records[0]])


def test_no_legend_of_a_run_is_inside_its_axes() -> None:
    with style():
        assert [list(legends_inside(figure)) for figure in figures()] == [[]] * 6


@pytest.mark.parametrize("name", FIGURES)
def test_no_legend_of_a_page_is_inside_its_axes(name: str) -> None:
    with style():
        assert list(legends_inside(FIGURES[name](read(name)))) == []


def test_a_legend_inside_is_found() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.plot([0, 1], label="a")
    ax.set_ylabel("covered")
    ax.legend(loc="center")
    assert list(legends_inside(figure)) == ["covered"]


def test_a_figure_is_written_for_screen_and_paper_and_the_same_again(tmp_path: Path) -> None:
    written = []
    for name in ("one", "again"):
        with style():
            figure = Figure(figsize=(2, 1))
            figure.subplots().set_xlabel("words")
            write_figure(figure, tmp_path / f"{name}.png")
        written.append((tmp_path / f"{name}.pdf").read_bytes())
    assert written[0] == written[1]
    assert b"/FontFile2" in written[0] or b"/TrueType" in written[0] or b"/Type42" in written[0]
    assert image.imread(tmp_path / "one.png").shape[1] > 1.2 * 300


@pytest.mark.parametrize("name", [*FIGURES, "react"])
def test_the_figures_of_the_pages_are_committed_with_a_form_for_a_paper(name: str) -> None:
    for suffix in ("png", "pdf"):
        assert (ROOT / "examples" / f"{name}.{suffix}").is_file()
