"""The grid on a fake engine: what is measured, in which order, and that it goes on where it stopped."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from concur.calib.errors import SamplesError
from concur.calib.fit.spread import describe, repeat_spread
from concur.calib.fit.step_samples import regime
from concur.calib.measure.closed_loop import ClosedLoopOptions, run_closed_loop
from concur.calib.measure.grid import Limits, Point, Prefill, decode_sizes, design, shuffled, sizes_beside
from concur.calib.measure.profiler import PointRunner, ProfileOptions, profile
from tests.calib.fake_engine import LIMITS, STEP_S, FakeEngine

H200 = Limits(16, 6000, 8192, 256, 32_768, (1, 2, 4, *range(8, 257, 8)))


@pytest.mark.parametrize("limits", [LIMITS, H200], ids=["fake", "h200"])
def test_every_point_fits_the_engine_and_is_there_once(limits: Limits) -> None:
    points = design(limits)
    assert len(points) == len(set(points)) > 20
    for point in points:
        assert point.num_scheduled_tokens <= limits.max_num_batched_tokens
        contexts = [*point.decode_context_tokens, *(prefill.context_tokens for prefill in point.prefills)]
        assert len(contexts) <= limits.max_num_seqs
        assert all(context % limits.block_size == 0 for context in contexts)
        assert sum(contexts) < limits.num_gpu_blocks * limits.block_size


def test_the_design_spans_sizes_contexts_chunks_and_mixtures() -> None:
    points = design(H200)
    decodes = [point.decode_context_tokens for point in points if not point.prefills]
    assert {1, 128, 129, 256} <= {len(contexts) for contexts in decodes}
    assert any(len(set(contexts)) > 2 for contexts in decodes)
    assert max(max(contexts) for contexts in decodes) > 32_000
    chunks = [point.prefills for point in points if not point.decode_context_tokens]
    assert {16, 8192} <= {prefills[0].num_tokens for prefills in chunks}
    assert {1, 4, 16} <= {len(prefills) for prefills in chunks}
    assert any(point.prefills and point.decode_context_tokens for point in points)


def test_sizes_just_beyond_a_captured_one_are_measured_only_where_graphs_are() -> None:
    assert decode_sizes(10) == [1, 2, 4, 8, 10]
    assert sizes_beside(H200) == [9, 17, 33, 65, 129]
    assert sizes_beside(LIMITS) == []


def test_the_order_is_a_function_of_seed_and_repeat() -> None:
    orders = [shuffled(50, seed=seed, repeat=repeat) for seed, repeat in itertools.product((0, 1), (0, 1))]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert shuffled(50, seed=0, repeat=0) == orders[0]


def test_a_point_runs_exactly_the_step_it_designs() -> None:
    runner = PointRunner(FakeEngine(), seed=0)
    point = Point((64, 32), (Prefill(16, 48), Prefill(5, 0)))
    for _ in range(2):  # fresh tokens: the second time is as the first
        rows = runner.run(point)
        assert [tuple(request) for request in rows[0].requests] == [(1, 64, False), (1, 32, False)]
        (mixed,) = [row for row in rows if regime(row) == "mixed"]
        counts = [request[:2] for request in mixed.requests]
        assert counts[2:] == [(16, 48), (5, 0)]
        assert [tokens for tokens, _ in counts[:2]] == [1, 1]


def test_a_decode_point_measures_each_decode_step_and_no_making_of_contexts() -> None:
    rows = PointRunner(FakeEngine(), seed=0).run(Point((160, 160)))
    assert [[tuple(request) for request in row.requests] for row in rows] == [
        [(1, 160 + step, step > 0)] * 2 for step in range(5)
    ]


def test_a_whole_profile_repeats_every_shape_and_leaves_no_partial_file(tmp_path: Path) -> None:
    partial = tmp_path / "x.partial.jsonl.gz"
    result = profile(FakeEngine(), ProfileOptions(repeats=3), partial, notes=("n",))
    assert result.num_left == 0
    assert not partial.exists()
    steps = result.samples.steps
    assert (steps["step_s"] == STEP_S).all()
    assert set(steps["phase"]) == {"prefill", "decode", "mixed"}
    names = ["prefill_tokens", "prefill_context_tokens", "decode_context_tokens"]
    assert {count % 3 for count in Counter(map(str, steps[names].to_numpy().tolist())).values()} == {0}
    assert result.samples.provenance.notes == ("n",)
    assert repeat_spread(result.samples) == 0
    assert "repeats within 0.0%" in describe(result.samples)


def test_an_interrupted_profile_keeps_what_it_has_and_measures_only_the_rest(tmp_path: Path) -> None:
    partial = tmp_path / "x.partial.jsonl.gz"
    options = ProfileOptions(repeats=2)
    whole_engine = FakeEngine()
    whole = profile(whole_engine, options, tmp_path / "whole.jsonl.gz")
    first_engine = FakeEngine(interrupt_at=whole_engine.num_steps // 2)
    first = profile(first_engine, options, partial)
    assert first.is_interrupted
    assert 0 < len(first.samples) < len(whole.samples)
    second_engine = FakeEngine()
    second = profile(second_engine, options, partial)
    assert not second.is_interrupted
    assert second.num_left == 0
    assert second_engine.num_steps < whole_engine.num_steps
    kept = second.samples.steps.iloc[: len(first.samples)]
    assert kept.equals(first.samples.steps)
    names = ["phase", "prefill_tokens", "prefill_context_tokens", "decode_context_tokens"]
    one, other = (result.samples.steps[names].to_numpy().tolist() for result in (whole, second))
    assert one == other
    assert second.samples.steps["t_s"].is_monotonic_increasing


def test_without_budget_nothing_is_measured_and_said_so(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="there are no steps"):
        profile(FakeEngine(), ProfileOptions(budget_s=0.0), tmp_path / "x.jsonl.gz")


@pytest.mark.parametrize(
    ("engine", "seed", "what"), [(FakeEngine(device="other"), 0, "engine"), (FakeEngine(), 1, "design")]
)
def test_another_engine_or_design_does_not_continue(
    tmp_path: Path, engine: FakeEngine, seed: int, what: str
) -> None:
    partial = tmp_path / "x.jsonl.gz"
    profile(FakeEngine(interrupt_at=200), ProfileOptions(), partial)
    with pytest.raises(SamplesError, match=f"measured with another {what}; delete it"):
        profile(engine, ProfileOptions(seed=seed), partial)


def test_another_date_does_continue(tmp_path: Path) -> None:
    partial = tmp_path / "x.jsonl.gz"
    profile(FakeEngine(interrupt_at=200), ProfileOptions(repeats=1), partial)
    assert profile(FakeEngine(date="2027-01-01"), ProfileOptions(repeats=1), partial).num_left == 0


def test_agents_of_a_closed_loop_make_their_calls_with_growing_histories() -> None:
    engine = FakeEngine()
    options = ClosedLoopOptions(num_agents=5, num_calls=3, output_tokens=4, mean_tool_s=0.0, cap=2)
    calls: list[tuple[int, int]] = []
    rows = run_closed_loop(engine, options, on_call=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (15, 15)
    assert {row.phase for row in rows} == {"run:cap2"}
    assert max(len(row.requests) for row in rows) <= 2
    assert sum(request.is_decode for row in rows for request in row.requests) == 15 * (4 - 1)
    longest = max(request.num_computed_tokens for row in rows for request in row.requests)
    assert longest > 2 * min(request.num_tokens for row in rows for request in row.requests)
    assert longest < LIMITS.max_model_len
