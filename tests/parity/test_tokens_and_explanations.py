"""What of parity needs no vLLM: token ids, the explanation of a difference, and what is out of scope."""

import importlib.util
import sys

import pytest

from concur.cli import main
from concur.sim.engine.offload.transfers import TransferJob
from concur.sim.kv.history import Histories
from concur.validate.errors import OutOfScopeError
from concur.validate.parity.explain import explain_difference
from concur.validate.parity.parity import Detail, Difference, Step, differing_fields
from concur.validate.parity.probes import Queues
from concur.validate.parity.tokens import TokenBook
from concur.validate.parity.vllm_scheduler import check_in_scope
from tests.helpers import make_scenario
from tests.parity.scenarios import CORNERS, corner


def test_token_ids_are_equal_exactly_where_block_names_are() -> None:
    """Two independent accounts of the same histories: token ids here, block names in the simulator."""
    _, workload = corner("crowded", is_async=False)
    book, histories = TokenBook(workload), Histories(16)
    names_of: dict[tuple[int, ...], int] = {}
    num_shared = 0
    for agent in workload.agents:
        history = histories.begin(agent.levels)
        for call_index, step in enumerate(agent.steps):
            prompt, output = book.begin_call(agent.index, call_index)
            assert (len(prompt), len(output)) == (step.prompt_tokens, step.output_tokens)
            tokens = prompt + output
            history = histories.call(history, kept_tokens=step.kept_tokens, context_tokens=len(tokens))
            for number, name in enumerate(history.block_hashes(0, len(tokens))):
                prefix = tuple(tokens[: 16 * (number + 1)])
                num_shared += prefix in names_of
                assert names_of.setdefault(prefix, name) == name
    assert num_shared > 0
    assert len(set(names_of.values())) == len(names_of)


def step(**changes: object) -> Step:
    fields: dict[str, object] = {
        "scheduled": (("a/0", 5, True),),
        "admitted": (),
        "preempted": (),
        "running": 1,
        "waiting": 2,
        "admitted_blocks": 0,
        "last_blocks": (7,),
        "num_free_blocks": 3,
        "kv_usage_frac": 0.5,
        "free_order": None,
    }
    return Step(**(fields | changes))  # type: ignore[arg-type]


def test_differences_are_named_field_by_field() -> None:
    names = ("scheduled", "num_free_blocks", "last_blocks")
    ours, theirs = [step(), step()], [step(), step(num_free_blocks=4)]
    assert differing_fields(ours, theirs, 0, names) == ()
    assert differing_fields(ours, theirs, 1, names) == ("num_free_blocks",)
    assert differing_fields(ours, theirs[:1], 1, names) == ("number of steps",)


def test_an_explanation_shows_both_sides() -> None:
    detail = Detail(step(), Queues(("a/0",), ("b/0", "c/1")), [4, 5, 6], {"a/0": [1, 2, 7]})
    text = explain_difference(Difference(3, ("scheduled",), detail, None), "0.32.0")
    assert "step 3 differs from vLLM 0.32.0 in: scheduled" in text
    assert "waiting: b/0, c/1" in text
    assert "blocks of a/0: [1, 2, 7]" in text
    assert "has no such step" in text


def test_only_a_host_cache_that_vllm_has_is_in_scope() -> None:
    scenario = make_scenario(engine={"host_cache": {"capacity_tokens": 100, "kind": "victim"}})
    with pytest.raises(
        OutOfScopeError, match="capacity_tokens = 100 but parity covers no host cache of kind vic"
    ):
        check_in_scope(scenario.vllm)
    check_in_scope(make_scenario(engine={"host_cache": {"capacity_tokens": 100}}).vllm)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["concur", "validate", "parity", "--fuzz", "3"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "make test-vllm" in capsys.readouterr().err


def test_an_explanation_of_a_host_cache_shows_transfers() -> None:
    moved = step(loads=(TransferJob(4, "a/0", 12),), flushed=(3,), num_host_chunks=7)
    text = explain_difference(
        Difference(3, ("loads",), Detail(moved, Queues((), (), ("a/0",)), [], {}), None), "0.32.0"
    )
    assert "loads: 4 (a/0, 12 blocks)   stores: -   flushed: [3]" in text
    assert "waiting with blocks: a/0" in text
    assert "7 chunks in host memory" in text


def test_worlds_made_on_purpose_fit_their_pools() -> None:
    for name in CORNERS:
        scenario, workload = corner(name, is_async=False)
        assert all(a.peak_context_tokens <= scenario.engine.pool_tokens for a in workload.agents)
