"""Ctrl-C: the first is a request, the second an order.

The first is acknowledged at once; the step that runs is finished, a checkpoint saved and verified, and
`train` returns.
The second raises KeyboardInterrupt, at which the core abandons the step; no trace of it remains in the
weights.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Interrupt"]

_FIRST = b"\nCtrl-C: finishing this step and saving a checkpoint; once more to abandon the step\n"
_SECOND = b"\nCtrl-C again: abandoned; the last checkpoint stands\n"


class Interrupt:
    """Handles SIGINT inside a `with`; elsewhere than in the main thread it does nothing.

    Attributes
    ----------
    requested : bool
        Whether the run was asked to stop.
    armed : bool
        Whether there is a step to finish: before and after the loop, Ctrl-C ends the call as it always does.
    """

    def __init__(self) -> None:
        self.requested = False
        self.armed = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.armed:
            raise KeyboardInterrupt
        second, self.requested = self.requested, True
        # os.write: a handler may run in the middle of a print, whose buffer it must not enter again.
        with contextlib.suppress(OSError):
            os.write(2, _SECOND if second else _FIRST)
        if second:
            raise KeyboardInterrupt
