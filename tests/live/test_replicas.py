"""One address over time: an engine that goes on, one that restarts, replicas that answer in turn."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concur.live.engines import Page
from concur.live.errors import ReplicasError, ScrapeError
from concur.live.lineage import Lineage
from concur.live.metric_names import SGLANG, VLLM
from concur.live.scrape import MetricsReader
from tests.live.pages import SGLANG_TEXT, counted_page, counted_text, edited, field_page, vllm_text, without

PROMPTS = "vllm:prompt_tokens_total"


def counted(pages: Iterable[str], reader: MetricsReader) -> list[int | None]:
    """Return the prompt tokens counted at every page, one second apart; `None` where replicas were seen."""
    counts: list[int | None] = []
    for second, page in enumerate(pages):
        try:
            counts.append(reader.read(page, time_s=float(second)).prompt_tokens)
        except ReplicasError:
            counts.append(None)
    return counts


def followed(pages: Iterable[Page], lineage: Lineage) -> list[float | None]:
    """Return the same as `counted`, of pages that have been read."""
    counts: list[float | None] = []
    for second, page in enumerate(pages):
        try:
            lineage.follow(page, time_s=float(second))
        except ReplicasError:
            counts.append(None)
        else:
            counts.append(lineage.counts["prompt_tokens"])
    return counts


def replica(which: str, second: int, *, starts: bool = False) -> str:
    """Return the page of one of two replicas, each serving 10,000 prompt tokens per second."""
    tokens, born_s = {"A": (5_000_000, 1000.0), "B": (1_000_000, 1400.0), "C": (0, 1500.0)}[which]
    return counted_text(tokens + 10_000 * second, born_s=born_s if starts else 0.0)


def turns(order: str, *, starts: bool = False) -> list[int | None]:
    return counted((replica(which, t, starts=starts) for t, which in enumerate(order)), MetricsReader(VLLM))


class TestReplicas:
    def test_that_answer_in_turn_are_an_error_and_no_rate_before_it_is_absurd(self) -> None:
        reader = MetricsReader(VLLM)
        pages = [replica("AB"[t % 2], t) for t in range(12)]
        counts = counted(pages, reader)
        assert counts == [5_000_000, 5_000_000, 5_020_000] + 9 * [None], "20,000 per second, as they serve"
        assert reader.num_resets == 0
        with pytest.raises(
            ReplicasError, match=r"name each replica's own address; several addresses are one"
        ):
            reader.read(pages[0], time_s=12.0)

    @pytest.mark.parametrize(
        ("order", "seen_at"),
        [
            ("ABABAB", 3),
            ("AABBAABBAABB", 6),
            ("AAAAABBBBBAAAAABBBBB", 15),
            ("AABAABAAB", 5),
            ("ACACACAC", 3),
            ("ACBACBACB", 4),
            ("BABABA", 3),
        ],
    )
    def test_in_other_orders(self, order: str, seen_at: int) -> None:
        counts = turns(order)
        assert counts.index(None) == seen_at
        assert None not in counts[:seen_at]
        assert set(counts[seen_at:]) == {None}

    @pytest.mark.parametrize("order", ["AABBAABBAABB", "ACACACAC", "ACBACBACB", "AAAAABBBBBAAAAABBBBB"])
    def test_count_no_more_than_they_serve_until_they_are_seen(self, order: str) -> None:
        served = 10_000 * len(set(order))
        assert all(
            count is None or count - 5_000_000 <= served * second for second, count in enumerate(turns(order))
        )

    @pytest.mark.parametrize(("order", "seen_at"), [("ABAB", 2), ("BA", 1), ("AACCA", 4), ("CB", 1)])
    def test_that_say_when_they_started_are_seen_at_once(self, order: str, seen_at: int) -> None:
        counts = turns(order, starts=True)
        assert counts.index(None) == seen_at
        assert (counts[seen_at - 1] or 0) - (counts[0] or 0) <= 20_000 * seen_at

    def test_that_differ_in_their_pools_are_seen_however_far_they_have_moved(self) -> None:
        blocks = {"A": 20_000, "B": 19_950}
        pages = (
            counted_text({"A": 500_000, "B": 400_000}[which] + 40_000 * t, num_gpu_blocks=blocks[which])
            for t, which in enumerate("AABBAABB")
        )
        assert None in counted(pages, MetricsReader(VLLM))

    def test_are_forgotten_after_a_rolling_update(self) -> None:
        counts = turns("AABABB" + 12 * "B")
        assert counts[6] is None
        assert None not in counts[-3:]
        gained = (counts[-1] or 0) - (counts[-2] or 0)
        assert gained == 10_000

    @given(
        order=st.lists(st.sampled_from("AB"), min_size=8, max_size=40),
        rate=st.integers(100, 20_000),
        unevenness=st.floats(0.5, 2.0),
    )
    def test_under_load_are_always_seen_at_their_fourth_turn(
        self, order: list[str], rate: int, unevenness: float
    ) -> None:
        order = ["A", *order]
        rates = {"A": rate, "B": round(rate * unevenness)}
        totals = {"A": 20_000 * rate, "B": 2_000 * rate}
        pages = [counted_page(totals[which] + rates[which] * t) for t, which in enumerate(order)]
        counts = followed(pages, Lineage(VLLM))
        served = sum(rates.values())
        switches = [t for t in range(1, len(order)) if order[t] != order[t - 1]]
        longest = max(
            later - earlier for earlier, later in zip([0, *switches], [*switches, len(order)], strict=True)
        )
        seen_at = switches[2] if len(switches) > 2 and longest <= 10 else len(order)
        assert None in counts or seen_at == len(order)
        assert all(each is None or each - counts[0] <= served * t for t, each in enumerate(counts))  # type: ignore[operator]


class TestRestarts:
    def test_go_on_from_where_the_counters_were(self) -> None:
        reader = MetricsReader(VLLM)
        values = [100, 150, 20, 30, 0, 10]
        assert counted((vllm_text({"0": {PROMPTS: value}}) for value in values), reader) == [
            100, 150, 170, 180, 180, 190,
        ]  # fmt: skip
        assert reader.num_resets == 2

    def test_under_load_are_no_replicas(self) -> None:
        reader = MetricsReader(VLLM)
        tokens = [*range(0, 400_000, 20_000), *range(10_000, 900_000, 20_000), *range(5_000, 300_000, 20_000)]
        counts = counted(map(counted_text, tokens), reader)
        assert None not in counts
        assert counts[-1] == 380_000 + 890_000 + 285_000
        assert reader.num_resets == 2
        assert reader.warnings == ()

    def test_to_more_than_can_have_been_counted_are_left_out_and_told(self) -> None:
        reader = MetricsReader(VLLM)
        assert counted(map(counted_text, [900_000, 910_000, 500_000, 510_000]), reader) == [
            900_000, 910_000, 910_000, 920_000,
        ]  # fmt: skip
        assert "did it restart, or do several replicas" in reader.warnings[0]

    def test_after_a_long_outage_have_had_the_time_to_count(self) -> None:
        reader = MetricsReader(VLLM)
        for time_s, tokens in [(0.0, 900_000), (1.0, 910_000), (100.0, 500_000)]:
            snapshot = reader.read(counted_text(tokens), time_s=time_s)
        assert snapshot.prompt_tokens == 1_410_000

    def test_that_have_overtaken_the_old_counts_are_seen_by_their_beginning(self) -> None:
        reader = MetricsReader(VLLM)
        pages = [counted_text(100, born_s=1.0), counted_text(200, born_s=1.0), counted_text(250, born_s=9.0)]
        counted(pages, reader)
        assert reader.num_resets == 1

    def test_with_another_pool_are_told(self) -> None:
        reader = MetricsReader(VLLM)
        reader.read(counted_text(100), time_s=0.0)
        snapshot = reader.read(counted_text(0, num_gpu_blocks=10_000), time_s=9.0)
        assert snapshot.num_gpu_blocks == 10_000
        assert reader.num_resets == 1
        assert reader.warnings == ("the pool changed from 320000 to 160000 tokens",)

    def test_of_sglang_publish_little_at_first_again(self) -> None:
        reader = MetricsReader(SGLANG)
        text = "".join(line + "\n" for line in SGLANG_TEXT.splitlines() if not line.startswith("#"))
        reader.read(text, time_s=0.0)
        cold = edited(text, lambda line: line if "num_pages" in line or "page_size" in line else None)
        assert reader.read(cold, time_s=1.0).prompt_tokens == 9000
        warm = edited(text, lambda line: line.replace("9000.0", "10.0").replace("500.0", "5.0"))
        assert reader.read(without(warm, "cached_tokens"), time_s=2.0).prompt_tokens == 9010
        assert reader.num_resets == 1

    @given(
        st.lists(st.lists(st.integers(0, 20_000), min_size=12, max_size=30), min_size=1, max_size=4),
        st.integers(0, 10**6),
    )
    def test_never_count_more_than_there_was(self, lives: list[list[int]], before: int) -> None:
        tokens, truth = [before], 0
        for number, life in enumerate(lives):
            total = before if number == 0 else 0
            for gain in life:
                total, truth = total + gain, truth + gain
                tokens.append(total)
        lineage = Lineage(VLLM)
        counts = [count for count in followed(map(counted_page, tokens), lineage) if count is not None]
        assert counts == sorted(counts)
        assert counts[-1] - before <= truth
        assert lineage.num_resets < len(lives)


class TestWhatWasPublishedBefore:
    @pytest.mark.parametrize("part", ['cache_source="host"', "cached_tokens_total", "kv_available_tokens"])
    def test_is_an_error_when_it_is_gone(self, part: str) -> None:
        reader = MetricsReader(SGLANG)
        before = reader.read(SGLANG_TEXT, time_s=0.0)
        with pytest.raises(ScrapeError, match="is not published any more"):
            reader.read(without(SGLANG_TEXT, part), time_s=1.0)
        assert reader.num_resets == 0
        assert reader.read(SGLANG_TEXT, time_s=0.0) == before

    def test_is_an_error_if_it_was_an_engine(self) -> None:
        reader = MetricsReader(VLLM)
        both, one = vllm_text({"0": {PROMPTS: 100}, "1": {PROMPTS: 40}}), vllm_text({"0": {PROMPTS: 110}})
        assert reader.read(both, time_s=0.0).prompt_tokens == 140
        with pytest.raises(ScrapeError, match=r'engine="1".* is not published any more'):
            reader.read(one, time_s=1.0)
        again = vllm_text({"0": {PROMPTS: 120}, "1": {PROMPTS: 45}})
        assert reader.read(again, time_s=2.0).prompt_tokens == 165
        assert reader.num_resets == 0

    def test_may_be_gone_after_a_restart_with_fewer_engines(self) -> None:
        reader = MetricsReader(VLLM)
        reader.read(vllm_text({"0": {}, "1": {}}), time_s=0.0)
        snapshot = reader.read(vllm_text({"0": {PROMPTS: 10}}), time_s=1.0)
        assert snapshot.num_gpu_blocks == 64
        assert reader.num_resets == 1
        assert "the pool changed" in reader.warnings[0]

    def test_may_grow(self) -> None:
        page = field_page("sglang_dp_attention")
        reader = MetricsReader(SGLANG)
        reader.read(without(page, 'dp_rank="7"'), time_s=0.0)
        snapshot = reader.read(page, time_s=1.0)
        assert (snapshot.num_requests_running, reader.num_resets) == (108, 0)
        assert any("dp_rank 7 has appeared" in line for line in reader.warnings)
