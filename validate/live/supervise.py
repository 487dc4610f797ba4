"""Run a command and never let it outlive the process that asked for it.

``python -m concur.validate.live.supervise COMMAND...`` starts the command in a process group of its own and
waits until it ends, or until standard input is closed. The kernel closes that pipe however its other end
dies, by Ctrl-C, by an exception or by SIGKILL; then the whole group is asked to stop, and killed if it does
not.
"""

import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Final

STOP_S: Final = 15.0
"""Seconds between the request to stop and the kill."""
_POLL_S: Final = 0.2


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input is closed; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(child)
    finally:
        _stop(child)
    return child.returncode


def _wait(child: "subprocess.Popen[bytes]") -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while child.poll() is None:
            if selector.select(_POLL_S) and not os.read(sys.stdin.fileno(), 4096):
                return


def _stop(child: "subprocess.Popen[bytes]") -> None:
    _signal_group(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(STOP_S)
    _signal_group(child.pid, signal.SIGKILL)  # also whatever of the group the command left behind
    child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
