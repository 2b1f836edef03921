"""Other weights of the same run: of the other kind (raw, EMA), and in the file beside (best, last). Of models
trained elsewhere: those that the caller named beside the first."""

from __future__ import annotations

from .. import checkpoint as checkpoint_file
from ..errors import CheckpointError
from .case import Case, Indices
from .outputs import Outputs
from .replay import is_own
from .subject import NetSubject, Subject

__all__ = ["outputs_of_sibling", "siblings"]

_BESIDE = {"best": "last", "last": "best"}


def siblings(case: Case) -> dict[str, Subject]:
    """The run's other weights by name, those in the file beside last; none where it is another run's."""
    found: dict[str, Subject] = case.keep("siblings", lambda: _found(case))
    return found


def outputs_of_sibling(case: Case, name: str, indices: Indices) -> Outputs:
    """What those weights say of samples; the same samples are scored once."""
    key = ("sibling", name, indices.tobytes())
    out: Outputs = case.keep(key, lambda: case.outputs_of(siblings(case)[name], indices, name))
    return out


def _found(case: Case) -> dict[str, Subject]:
    out: dict[str, Subject] = dict(case.others)
    saved, subject = case.saved, case.subject
    if saved is None or saved.path is None or case.data is None or not isinstance(subject, NetSubject):
        return out
    beside = saved.path.with_stem(_BESIDE.get(saved.path.stem, saved.path.stem))
    if beside == saved.path or not beside.exists():
        return out
    try:
        second = checkpoint_file.read(beside)
        same_run = is_own(second, case.data) and second.recipe == saved.recipe
    except CheckpointError:
        return out
    if same_run and second.state["step"] != saved.state["step"]:
        name = f"{beside.stem} ({second.weights_kind})"
        out[name] = subject.with_weights(second.scored(), name)
    return out
