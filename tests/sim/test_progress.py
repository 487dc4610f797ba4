"""What is said while something is waited for, on a terminal and in a log."""

import pytest

from concur.sim.runs.progress import one_bar_each, waiting


def test_a_log_hears_of_a_wait_at_once_and_then_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("starting vLLM") as on_wait:
        for waited_s in range(65):
            on_wait(float(waited_s), f"[step] {waited_s}" + "x" * 500)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines[0] == "starting vLLM ..."
    assert [line.partition("x")[0] for line in lines[1:]] == [
        f"starting vLLM: {n} s; [step] {n}" for n in (20, 40, 60)
    ]
    assert max(map(len, lines)) < 150, "one line each, however long the log's are"


def test_a_terminal_shows_one_line_that_moves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with waiting("starting vLLM") as on_wait:
        on_wait(3.0, "[not markup]")
    assert "starting vLLM: 3 s; [not markup]" in capsys.readouterr().err


def test_a_log_hears_of_every_run_as_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    with one_bar_each() as on_progress:
        on_progress("none, run-0", 0, 3)
        assert "none, run-0 ..." in capsys.readouterr().err
        on_progress("none, run-0", 1, 3)
    assert "none, run-0 ..." not in capsys.readouterr().err
