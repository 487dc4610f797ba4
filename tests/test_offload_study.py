"""The committed study of recompute and reload says what is said of it."""

from benchmarks.offload_study import CHEAP, CHEAP_RATIO, LAWS, TIERS, rows_of, table
from benchmarks.result_files import mean, read

RESULT = read("offload")


def test_the_twin_stands_aside_where_reloading_is_cheap() -> None:
    twin = rows_of(RESULT, CHEAP)["twin"]
    assert mean(twin["ratio"]) < CHEAP_RATIO
    assert twin["worst_ratio"] < CHEAP_RATIO


def test_every_law_is_judged_on_every_tier_and_who_loses_is_named() -> None:
    lines = table(RESULT).splitlines()
    assert len(lines) == len(TIERS) * (len(LAWS) + 1)
    cheap = [line for line in lines if line.startswith(CHEAP)]
    losers = {line[len(CHEAP) :].split()[0] for line in cheap if line.endswith("LOSES")}
    rows = rows_of(RESULT, CHEAP)
    assert losers == {row.get("policy", law) for law, row in rows.items() if mean(row["ratio"]) > CHEAP_RATIO}
    assert losers
    assert not losers & {"none", "twin"}


def test_without_a_tier_nothing_comes_from_host_memory_and_an_ample_one_gives_back_most() -> None:
    assert mean(rows_of(RESULT, "no tier")["none"]["host_tokens"]) == 0
    none = rows_of(RESULT, CHEAP)["none"]
    assert mean(none["host_tokens"]) > 500_000
    assert mean(none["recompute_time_fraction"]) < 0.02
