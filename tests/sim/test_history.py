"""Block names are equal exactly where the tokens, from the start, are."""

from concur.signals import Prefix
from concur.sim.kv.history import BlockHash, Histories, History


class Agent:
    """An agent that calls."""

    def __init__(self, histories: Histories, group: str | None, shared_prefix_tokens: int = 0) -> None:
        self.histories = histories
        self.history = histories.begin([Prefix(group, shared_prefix_tokens)] if group is not None else ())

    def call(self, kept_tokens: int, context_tokens: int) -> list[BlockHash]:
        self.history = self.histories.call(
            self.history, kept_tokens=kept_tokens, context_tokens=context_tokens
        )
        return names(self.history)


def names(history: History) -> list[BlockHash]:
    return list(history.block_hashes(0, 1_000_000))


def test_agents_of_a_group_share_the_blocks_inside_the_shared_prefix() -> None:
    histories = Histories(16)
    first = Agent(histories, "g", 40).call(40, 100)
    second = Agent(histories, "g", 70).call(70, 100)
    assert first[:2] == second[:2]  # 32 of 40 tokens fill blocks
    assert not set(first[2:]) & set(second)


def test_groups_and_lone_agents_share_nothing() -> None:
    histories = Histories(16)
    all_names = [set(Agent(histories, group, 64).call(64, 64)) for group in ("g", "h", None, None)]
    assert len(set.union(*all_names)) == 16


def test_a_history_that_only_grows_keeps_its_names() -> None:
    agent = Agent(Histories(16), None)
    before, after = agent.call(0, 50), agent.call(50, 120)
    assert len(before) == 3
    assert len(after) == 7
    assert after[:3] == before


def test_dropping_tokens_renames_from_the_first_block_that_changes() -> None:
    agent = Agent(Histories(16), None)
    before, after = agent.call(0, 160), agent.call(50, 160)
    assert after[:3] == before[:3]
    assert not set(after[3:]) & set(before)


def test_dropping_into_the_shared_prefix_keeps_only_its_kept_part() -> None:
    histories = Histories(16)
    agent = Agent(histories, "g", 64)
    shared = names(agent.history)
    agent.call(64, 160)
    after = agent.call(20, 160)
    assert after[:1] == shared[:1]
    assert not set(after[1:]) & set(shared)


def test_a_history_cut_to_less_than_a_block_does_not_come_back_as_the_shared_prefix() -> None:
    agent = Agent(Histories(16), "g", 48)
    shared = names(agent.history)
    agent.call(48, 49)
    assert agent.call(0, 2) == []
    assert not set(agent.call(2, 20)) & set(shared)


def test_dropping_everything_renames_everything() -> None:
    agent = Agent(Histories(16), "g", 64)
    before = set(agent.call(64, 64))
    assert not before & set(agent.call(0, 64))


def test_only_none_is_no_group() -> None:
    """Whoever lets an empty name through."""
    histories = Histories(16)
    assert Agent(histories, "", 64).call(64, 64) == Agent(histories, "", 64).call(64, 64)


def test_two_that_write_on_from_the_same_end_share_what_they_keep_and_nothing_else() -> None:
    """A fork: the second one may not grow a stretch that the first one has grown already."""
    histories = Histories(16)
    parent = histories.call(histories.begin(()), kept_tokens=0, context_tokens=64)
    one, other = (histories.call(parent, kept_tokens=64, context_tokens=128) for _ in range(2))
    assert names(one)[:4] == names(other)[:4] == names(parent)
    assert not set(names(one)[4:]) & set(names(other))


def test_a_range_of_names_is_a_part_of_them_all() -> None:
    agent = Agent(Histories(16), "g", 48)
    agent.call(48, 160)
    whole = agent.call(100, 320)
    for start in range(0, 21, 3):
        for stop in range(start, 24, 4):
            assert list(agent.history.block_hashes(start, stop)) == whole[start:stop]


def test_a_group_within_another_begins_where_that_one_ends() -> None:
    """The same task after a longer system prompt is elsewhere: they share the system prompt and no more."""
    histories = Histories(16)

    def named(system_tokens: int) -> list[BlockHash]:
        return names(histories.begin([Prefix("system", system_tokens), Prefix("task", 64)]))

    short, again, longer = named(32), named(32), named(48)
    assert short == again
    assert len(set(short)) == 6
    assert short[:2] == longer[:2]
    assert not set(short[2:]) & set(longer)
