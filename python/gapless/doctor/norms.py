"""What several checks of BatchNorm share: the deployed weights with other statistics, and how they score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .outputs import Outputs
from .replay import Mode, Replay, replay_of
from .subject import NetSubject

if TYPE_CHECKING:
    from .case import Case
    from .statistics import Gathered

__all__ = ["SMALL", "gathered", "last_batch", "precise_outputs", "replay_cost"]

#: Samples below which a batch's statistics are noisy (Wu and He 2018: error rises steadily from 16 down).
SMALL = 16


def replay_cost(*modes: Mode, val: float = 0.0) -> Callable[[Case], float]:
    """For `cost`: the passes in these modes that the waterfall or another check has not made yet, and so many
    passes over validation."""

    def cost(case: Case) -> float:
        replay = replay_of(case)
        if replay is None:
            return 0.0
        kind = replay.saved.weights_kind
        images = sum(replay.images_left(kind, mode) for mode in modes)
        return images * case.seconds_per_image() + case.passes(val, "val")

    return cost


def gathered(case: Case, *, dropout: bool = True) -> Gathered | None:
    """Statistics of the recorded batches with the deployed weights; None without a replay or BatchNorm."""
    replay = replay_of(case)
    if replay is None or not replay.norm:
        return None
    return _deployed(case, replay, Mode(dropout, "batch"))


def _deployed(case: Case, replay: Replay, mode: Mode) -> Gathered | None:
    saved = replay.saved
    return replay.passed(saved.weights_kind, saved.scored(), mode).gathered


def precise_outputs(case: Case, *, dropout: bool = True) -> Outputs:
    """Validation with the deployed weights whose running statistics were computed anew over the recorded
    batches, dropout on or off."""

    def make() -> Outputs:
        found = gathered(case, dropout=dropout)
        assert found is not None
        assert case.saved is not None
        assert case.data is not None
        assert isinstance(case.subject, NetSubject)
        subject = case.subject.with_weights(found.into(case.saved.scored()), "precise statistics")
        return case.outputs_of(subject, case.data.indices("val"), "val")

    replay = replay_of(case)
    on = dropout and replay is not None and replay.dropout
    made: Outputs = case.keep(("precise outputs", on), make)
    return made


def last_batch(case: Case) -> int:
    """Samples in an epoch's last batch."""
    assert case.saved is not None
    assert case.data is not None
    recipe, n = case.saved.recipe, len(case.data.indices("train"))
    size = int(recipe["batch_size"])
    if recipe["drop_last"] or n % size == 0:
        return min(size, n)
    return n % size
