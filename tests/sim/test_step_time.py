"""Step time: the formula of the scenario contract, and a split that adds up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concur.sim.step_time.step_time import LinearStepTime, StepBatch, step_cost

STEP = LinearStepTime(0.006, 2.1e-5, 5e-5, 1.2e-8, 1.0e-9)


def test_the_linear_formula_written_out() -> None:
    batch = StepBatch()
    batch.add_prefill(512, 1024, 0)
    batch.add_prefill(100, 0, 0)
    batch.add_decode(2000)
    batch.add_decode(999)
    prefill_pairs = 512 * 1024 + 512 * 513 // 2 + 100 * 101 // 2
    expected = 0.006 + 2.1e-5 * 612 + 5e-5 * 2 + 1.2e-8 * 2999 + 1.0e-9 * prefill_pairs
    assert STEP(batch) == pytest.approx(expected, rel=1e-12)


def test_recompute_is_the_first_part_of_a_chunk() -> None:
    batch = StepBatch()
    batch.add_prefill(100, 50, 30)
    useful = batch.without_recompute()
    assert useful.prefill_tokens == 70
    # the other 70 tokens sit on 80 computed ones
    assert useful.prefill_pairs == 70 * 80 + 70 * 71 // 2
    assert useful.prefill_context_tokens == 80
    batch.add_prefill(10, 500, 10)  # all of it
    assert batch.without_recompute() == useful
    assert batch.prefill_context_tokens == 550


@given(st.integers(1, 1000), st.integers(0, 10**8), st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_the_duration_of_decodes_alone_is_the_same_to_the_bit(
    decodes: int, context: int, coefficients: list[float]
) -> None:
    step_time = LinearStepTime(*coefficients)
    batch = StepBatch(decode_seqs=decodes, context_tokens=context)
    assert step_time.of_decodes(decodes)(context) == step_time(batch)


chunks = st.tuples(st.integers(1, 500), st.integers(0, 5000), st.floats(0, 1))


@given(st.lists(chunks, max_size=5), st.lists(st.integers(0, 9000), max_size=5))
def test_the_split_adds_up_and_no_part_is_negative(
    prefills: list[tuple[int, int, float]], decodes: list[int]
) -> None:
    batch = StepBatch()
    for num_tokens, context, share in prefills:
        batch.add_prefill(num_tokens, context, int(share * num_tokens))
    for context in decodes:
        batch.add_decode(context)
    if batch.is_empty:
        return
    cost = step_cost(STEP, batch)
    assert cost.prefill_s + cost.recompute_s + cost.decode_s == pytest.approx(cost.total_s, abs=1e-12)
    assert min(cost.prefill_s, cost.recompute_s, cost.decode_s) >= -1e-12
    assert (cost.recompute_s > 0) == (batch.recomputed_tokens > 0)
    assert (cost.decode_s > 0) == bool(decodes)
