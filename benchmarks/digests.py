"""Digests of many small runs: to tell whether two forms or two states of the code do the same.

The worlds are those of the parity suites, and random ones from a fixed seed, of vLLM with and without a
second tier and of SGLang, each on the fast core and on the reference. They are drawn once and kept for the
other form: Hypothesis takes numbers from the sources that it sees loaded, and a compiled module has none.
"""

import hashlib
import io
import json
import pickle
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

import pyarrow as pa
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from concur.sim.engine.vllm import fast
from concur.sim.record.record import RunRecord
from concur.sim.world.cores import reference_core_of
from concur.sim.world.simulate import simulate
from concur.validate.parity.sglang_worlds import sglang_worlds
from concur.validate.parity.worlds import World, worlds
from tests.parity import sglang_scenarios as of_sglang
from tests.parity.scenarios import CORNERS, TRACE_CASES, corner, trace_world

FORM: Final = "form"
"""Beside the digests: the suffix of the file that the fast core was loaded from."""
_NUM_RANDOM: Final = 150  # of each kind: synchronous and ahead, then with a second tier, then of SGLang
_NOT_OF_THE_RUN: Final = ("versions", "git_commit")


def main(path: Path, kept: Path) -> None:
    """Write the digest of every run as JSON; the worlds are those kept, or are drawn and kept now."""
    if not kept.exists():
        kept.write_bytes(pickle.dumps(list(_worlds())))
    digests = {FORM: Path(fast.__file__).suffix}
    for name, world in pickle.loads(kept.read_bytes()):
        scenario, workload = world
        digests[f"{name}, fast"] = digest(simulate(scenario, workload))
        if not name.endswith("ample"):  # block by block they take minutes
            record = simulate(scenario, workload, core=reference_core_of(scenario))
            digests[f"{name}, reference"] = digest(record)
    path.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


def digest(record: RunRecord) -> str:
    """Return the SHA-256 of a record, without what differs from machine to machine."""
    found = hashlib.sha256()
    for table in record.tables.values():
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        found.update(sink.getvalue())
    run = {name: value for name, value in record.run.items() if name not in _NOT_OF_THE_RUN}
    run["metrics"] = record.metrics | {"wall_clock_s": 0}
    found.update(json.dumps(run, sort_keys=True).encode())
    return found.hexdigest()


def _worlds() -> Iterator[tuple[str, World]]:
    for is_async in (False, True):
        for name in CORNERS:
            yield f"{name}, async {is_async}", corner(name, is_async=is_async)
        for case in TRACE_CASES:
            for pool in case.pools:
                yield f"{case.file}, async {is_async}, {pool}", trace_world(case, pool, is_async=is_async)
    yield from _sglang_worlds()
    for has_tier in (False, True):
        for number, world in enumerate(_random(worlds(with_host_cache=has_tier), int(has_tier))):
            yield f"random {number}, tier {has_tier}", world
    for number, world in enumerate(_random(sglang_worlds(), 2)):
        yield f"random {number}, sglang", world


def _sglang_worlds() -> Iterator[tuple[str, World]]:
    for is_overlapped, page_size in product((False, True), (1, 16)):
        how = f"sglang, overlap {is_overlapped}, pages of {page_size}"
        for name, make in of_sglang.CORNERS.items():
            yield f"{name}, {how}", make(is_overlapped=is_overlapped, page_size=page_size)
        for name, policy in product(of_sglang.BEGINNINGS, ("fcfs", "lpm")):
            engine = {"page_size": page_size, "schedule_policy": policy}
            world = of_sglang.trace_world(name, "starved", is_overlapped=is_overlapped, **engine)
            yield f"{name}, {policy}, {how}", world


def _random(strategy: SearchStrategy[World], number: int) -> list[World]:
    drawn: list[World] = []

    @seed(number)
    @settings(max_examples=_NUM_RANDOM, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(world: World) -> None:
        drawn.append(world)

    draw()
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
