"""Whatever is done to a page that is right: it is read as what it is, or refused. Never another number.

The truth is still there in an altered page unless the page is now the truth of another server. So values are
left alone, and the labels of `cache_config_info` that are values; series that a server publishes only after
their first event (`is_late`, and the parts of a counter), or not at all (the engine's steps), are neither
taken away nor put there: such a page is that of a server on which it has not happened yet, or has.
"""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concur.live.errors import ScrapeError
from concur.live.metric_names import ENGINES
from concur.live.scrape import MetricsReader, detect_names
from concur.signals import Snapshot
from tests.live.pages import SGLANG_TEXT, VLLM_TEXT, counted_text, field_page, vllm_text

PAGES = {
    "vllm": VLLM_TEXT,
    "vllm dp": vllm_text({"0": {}, "1": {"vllm:num_requests_running": 3, "vllm:kv_cache_usage_perc": 0.5}}),
    "vllm hybrid": field_page("vllm_dsv4_hybrid"),
    "vllm pids": field_page("vllm_api_server_count_pid"),
    "vllm old": counted_text(1000),
    "sglang": SGLANG_TEXT,
    "sglang dp": field_page("sglang_dp_attention"),
    "sglang cold": field_page("sglang_cold"),
}
NAMES = sorted({series.name for names in ENGINES for series in names.series.values()})
LATE = tuple(
    series.name
    for names in ENGINES
    for field, series in names.series.items()
    if series.is_late or field == "num_engine_steps"
)
LABEL = re.compile(r'([,{])(\w+)="([^"]*)"')
SETTINGS = settings(max_examples=40, deadline=None)


def read(text: str) -> Snapshot:
    return MetricsReader(detect_names(text)).read(text, time_s=0.0)


TRUTH = {name: read(text) for name, text in PAGES.items()}


def assert_true_or_refused(page: str, text: str) -> None:
    try:
        found: Snapshot | str = read(text)
    except ScrapeError as error:
        found = str(error)
    assert found == TRUTH[page] or (isinstance(found, str) and found and "\n" not in found)


def samples(page: str, *, with_late: bool = True) -> list[int]:
    """Return the numbers of the lines that a snapshot is made of."""
    lines = PAGES[page].splitlines()
    return [
        number
        for number, line in enumerate(lines)
        if line.startswith(tuple(f"{name}{{" for name in NAMES)) and (with_late or not line.startswith(LATE))
    ]


def alter(page: str, number: int, change: Callable[[str], str]) -> str:
    lines = PAGES[page].splitlines()
    lines[number] = change(lines[number])
    return "".join(f"{line}\n" for line in lines if line)


pages = pytest.mark.parametrize("page", PAGES)


@pages
def test_a_line_that_is_dropped_or_doubled(page: str) -> None:
    for number in samples(page, with_late=False):
        assert_true_or_refused(page, alter(page, number, lambda line: ""))
    for number in samples(page):
        with pytest.raises(ScrapeError, match="published twice"):
            read(alter(page, number, lambda line: f"{line}\n{line}"))
        with pytest.raises(ScrapeError):
            read(alter(page, number, lambda line: f"{line}\n{line.rpartition(' ')[0]} 0.125"))


@pages
def test_a_series_that_is_dropped(page: str) -> None:
    for name in NAMES:
        if name not in LATE:
            text = "".join(line + "\n" for line in PAGES[page].splitlines() if not line.startswith(name))
            if text != PAGES[page] and not {"sglang:kv_available_tokens", "sglang:max_total_num_tokens"} & {
                name
            }:
                with pytest.raises(ScrapeError, match=name):
                    read(text)


@pages
@SETTINGS
@given(data=st.data())
def test_a_line_that_is_renamed(page: str, data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(samples(page, with_late=False)))
    names = [name for name in NAMES if name not in LATE]  # put there, such a series is its first event
    name = data.draw(st.sampled_from([*names, "vllm:other", "sglang:other", "other"]))
    assert_true_or_refused(page, alter(page, number, lambda line: name + line[line.index("{") :]))


@pages
@SETTINGS
@given(data=st.data())
def test_a_line_with_a_label_that_is_dropped_renamed_or_changed(page: str, data: st.DataObject) -> None:
    number = data.draw(st.sampled_from(samples(page)))
    line = PAGES[page].splitlines()[number]
    label = data.draw(st.sampled_from(list(LABEL.finditer(line))))
    others = sorted({match[2] for match in LABEL.finditer(PAGES[page])} | {"pid", "pod", "tp_rank"})
    values = sorted(
        {match[3] for match in LABEL.finditer(PAGES[page]) if match[2] == label[2]} | {"9", "x", ""}
    )
    is_of_the_server = "info{" in line and label[2] != "engine"
    changed = data.draw(
        st.one_of(
            st.just(""),
            st.sampled_from(others).map(lambda name: f'{name}="{label[3]}"'),
            *(
                []
                if is_of_the_server
                else [st.sampled_from(values).map(lambda value: f'{label[2]}="{value}"')]
            ),
        )
    )
    is_doubled = label[2] != "cache_source" and data.draw(st.booleans())
    after = (line[: label.start(2)] + changed + line[label.end() :]).replace("{,", "{").replace(",,", ",")
    after = after.replace(",}", "}")
    assert_true_or_refused(
        page, alter(page, number, lambda line: f"{line}\n{after}" if is_doubled else after)
    )


@pages
@SETTINGS
@given(data=st.data())
def test_a_label_that_is_dropped_or_renamed_on_the_whole_page(page: str, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(sorted({match[2] for match in LABEL.finditer(PAGES[page])})))
    name = data.draw(st.sampled_from(["", "pod", "pid", "engine", "dp_rank", "tp_rank"]))
    text = re.sub(rf'([,{{]){label}="([^"]*)"', rf'\1{name}="\2"' if name else r"\1", PAGES[page])
    assert_true_or_refused(page, text.replace("{,", "{").replace(",,", ",").replace(",}", "}"))


@pages
@SETTINGS
@given(data=st.data())
def test_lines_in_any_order_and_pages_put_together(page: str, data: st.DataObject) -> None:
    lines = data.draw(
        st.permutations([line for line in PAGES[page].splitlines() if not line.startswith("#")])
    )
    assert read("".join(line + "\n" for line in lines)) == TRUTH[page]
    other = data.draw(st.sampled_from(sorted(PAGES)))
    with pytest.raises(ScrapeError):
        read(PAGES[page] + PAGES[other])


@pages
@SETTINGS
@given(data=st.data())
def test_a_page_that_is_cut_off(page: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(PAGES[page]) - 1))
    if not PAGES[page][:length].endswith("\n"):
        with pytest.raises(ScrapeError):
            read(PAGES[page][:length])
