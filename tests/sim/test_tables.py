"""Tables on terminals and in pipes: never cut, whatever the width."""

import pytest
from rich.table import Table

from concur.sim.lab.sweep_table import sweep_table
from concur.sim.show.tables import comparison_table, interval_table, phase_table, print_tables
from concur.sim.world.simulate import simulate
from tests.helpers import make_scenario


def a_table(num_columns: int = 8) -> Table:
    table = Table(title="the title", caption="the caption")
    table.add_column("name")
    for number in range(num_columns):
        table.add_column(f"heading {number}", justify="right")
    for name in ("first", "second"):
        table.add_row(name, *(f"{name[0]}{number}" for number in range(num_columns)))
    return table


def printed(table: Table, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_tables(table)
    return capsys.readouterr().out.splitlines()


def test_columns_says_how_wide_also_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns, num_parts in (("200", 1), ("80", 2), ("40", 4)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = printed(a_table(), capsys)
        assert max(map(len, lines)) <= int(columns)
        assert sum("name" in line for line in lines) == num_parts
        text = "\n".join(lines)
        assert text.count("the title") == text.count("the caption") == 1
        assert all(text.count(f"{row}{number} ") == 1 for row in "fs" for number in range(8))
        assert all(text.count(f"heading {number}") == 1 for number in range(8))


@pytest.mark.parametrize("columns", [None, "0", "wide", "-5"])
def test_without_a_width_it_is_wide_enough_for_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert sum("name" in line for line in printed(a_table(), capsys)) == 1


@pytest.mark.parametrize("columns", ["80", "60"])
def test_the_comparison_can_be_read_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    policies = (
        {"kind": "none"},
        {"kind": "agent_cap", "cap": 2},
        {"kind": "concur", "wrappers": ["app_limited"]},
    )
    records = [simulate(make_scenario(controller=policy)) for policy in policies]
    by_seed = {record.label: {0: record, 1: record} for record in records}
    for table in (comparison_table(records), interval_table(by_seed), phase_table(records)):
        lines = printed(table, capsys)
        assert max(map(len, lines)) <= int(columns)
        text = "\n".join(lines)
        assert "…" not in text
        for column in table.columns:
            assert str(column.header) in text
            assert all(str(cell) in text for cell in column.cells)


@pytest.mark.parametrize("is_wide", [False, True])
def test_the_key_columns_of_a_comparison_fit_eighty_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_wide: bool
) -> None:
    """With the longest names and the largest numbers of the committed results."""
    monkeypatch.setenv("COLUMNS", "80" if not is_wide else "140")
    one, other = (simulate(make_scenario(controller={"kind": "agent_cap", "cap": cap})) for cap in (105, 240))
    for record, makespan_s in ((one, 1_234.5), (other, 1_240.0)):
        record.metrics["makespan_s"] = makespan_s
    by_seed = {"agent_cap=105": {0: one, 1: other}, "agent_cap=240": {0: other, 1: one}}
    for table in (comparison_table([one, other], is_wide=is_wide), interval_table(by_seed, is_wide=is_wide)):
        lines = [line for line in printed(table, capsys) if line.startswith("┃")]
        assert len(lines) == 1 or (is_wide and len(lines) == 2)
        assert len(table.columns) == 6 or is_wide


def test_the_keys_of_a_sweep_name_its_rows_in_every_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    rows = [{"a.key": 7, "policy": f"policy-{number}", "makespan_s": 5.0} for number in range(9)]
    lines = printed(sweep_table(rows, ["a.key"]), capsys)
    headings = [line for line in lines if "policy-" in line]
    assert len(headings) > 1
    assert all("a.key" in line for line in headings)
