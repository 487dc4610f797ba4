"""Whether a machine has a GPU, from the drivers' devices and what the environment hides."""

from pathlib import Path

import pytest

from concur.validate.live.devices import why_no_gpu


def test_a_machine_without_devices_has_none(tmp_path: Path) -> None:
    assert "no driver's device" in (why_no_gpu({}, dev=tmp_path) or "")
    (tmp_path / "nvidiactl").touch()
    assert why_no_gpu({}, dev=tmp_path), "a driver without a card is no GPU"


@pytest.mark.parametrize("node", ["nvidia0", "nvidia12", "kfd", "dxg", "dri/renderD128"])
def test_a_device_of_any_vendor_may_be_one(tmp_path: Path, node: str) -> None:
    (tmp_path / node).parent.mkdir(exist_ok=True)
    (tmp_path / node).touch()
    assert why_no_gpu({}, dev=tmp_path) is None
    assert why_no_gpu({"CUDA_VISIBLE_DEVICES": "1"}, dev=tmp_path) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1"), ("HIP_VISIBLE_DEVICES", "")],
)
def test_devices_that_are_hidden_are_none(tmp_path: Path, variable: str, value: str) -> None:
    (tmp_path / "nvidia0").touch()
    assert variable in (why_no_gpu({variable: value}, dev=tmp_path) or "")
