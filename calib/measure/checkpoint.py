"""What a profile has measured so far, beside its output: `OUT.partial.jsonl.gz`.

The first line holds the engine's facts and the design; each further line one measured point of one repeat. A
profile that was stopped continues from here, on the same engine and design only.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from concur.calib.errors import SamplesError
from concur.calib.fit.lines import read_json_lines
from concur.validate.steps.step_log import StepFile


class Checkpoint:
    """Samples per (repeat, point); kept on disk after each point.

    Raises
    ------
    SamplesError
        If the file exists but is broken, or was measured on another engine or design.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], design: Mapping[str, Any]) -> None:
        self.path = path
        self._samples: dict[tuple[int, int], list[dict[str, Any]]] = {}
        header = {"engine": _without_date(facts), "design": dict(design)}
        is_new = not path.exists()
        if not is_new:
            self._load(header)
        self._file = StepFile(path)
        if is_new:
            self._file.write(header)
            self._file.flush()

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._samples

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def end_s(self) -> float:
        """When the last sample of an earlier sitting ended, on the recording's clock; 0 if there is none."""
        ends = (sample["t_s"] + sample["step_s"] for sample in self.samples())
        return max(ends, default=0.0)

    def add(self, repeat: int, point: int, samples: list[dict[str, Any]]) -> None:
        """Keep the samples of one point."""
        self._samples[repeat, point] = samples
        self._file.write({"repeat": repeat, "point": point, "samples": samples})
        self._file.flush()

    def samples(self) -> Iterator[dict[str, Any]]:
        """Yield all samples, in the order in which they were measured."""
        for samples in self._samples.values():
            yield from samples

    def close(self, *, is_complete: bool) -> None:
        """Close the file; delete it if nothing is left to measure."""
        self._file.close()
        if is_complete:
            self.path.unlink()

    def _load(self, header: Mapping[str, Any]) -> None:
        for number, line in read_json_lines(self.path):
            try:
                if number > 1:
                    self._samples[line["repeat"], line["point"]] = line["samples"]
                    continue
                differing = [key for key in header if line[key] != header[key]]
            except KeyError as error:
                raise SamplesError(f"{self.path}:{number}: no {error}; delete it to begin anew") from None
            if differing:
                raise SamplesError(
                    f"{self.path}: was measured with another {' and '.join(differing)}; "
                    "delete it to begin anew, or choose another --out"
                )


def _without_date(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != "date"}
