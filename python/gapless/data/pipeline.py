"""Pipelines: a list of augmentations over uint8 pictures, run by the C core with a thread per picture.

Randomness is a function here: what an operation draws for a picture depends on the seed, the epoch, the
sample's id and the operation's own number, and on nothing else. So results do not depend on threads, order or
batch, any epoch can be shown again, and removing one operation changes no other one's draws.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless import _core
from gapless.augment import Augment, from_config
from gapless.errors import RecipeError

__all__ = ["Pipeline", "RandomInEvaluationError"]

#: What to use in an evaluation pipeline instead of an operation that draws.
_INSTEAD = {
    "RandomCrop": "CenterCrop",
    "RandomResizedCrop": "Resize followed by CenterCrop",
    "RandomHorizontalFlip": "nothing: leave it out",
}

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]


class RandomInEvaluationError(RecipeError, TypeError):
    """An operation that draws at random stands in an evaluation pipeline."""


class Pipeline:
    """A list of augmentations with fixed numbers, ready to run.

    Parameters
    ----------
    ops : sequence of Augment, dict, str or tuple
        Operations in order: objects of `gapless.augment`, ``{"name": …, "id": …, **parameters}``, or names.
        What has no id gets the next free number.
    evaluation : bool
        True: refuse what draws at random. Evaluation must give the same number every time.

    Raises
    ------
    RandomInEvaluationError
        (a TypeError and a RecipeError) where an evaluation pipeline holds a random operation.
    RecipeError
        Two operations with one id, or Normalize not last.

    Examples
    --------
    >>> import numpy as np
    >>> from gapless import augment
    >>> pipe = Pipeline([augment.RandomCrop(4, padding=1), augment.RandomHorizontalFlip()])
    >>> x = [np.arange(48, dtype=np.uint8).reshape(4, 4, 3)]
    >>> pipe.run(x, [7], epoch=0, seed=0).shape
    (1, 4, 4, 3)
    >>> bool((pipe.run(x, [7], epoch=3, seed=0) == pipe.run(x, [7], epoch=3, seed=0)).all())
    True
    """

    __slots__ = ("_core", "_ids", "_ops", "evaluation")

    def __init__(self, ops: Sequence[Augment | Mapping[str, Any] | str], *, evaluation: bool = False) -> None:
        if isinstance(ops, Pipeline):
            ops = ops.config()
        made, given = [], []
        for position, item in enumerate(ops):
            op, ident = _read(item, position)
            if evaluation and op.random:
                raise RandomInEvaluationError(
                    f"evaluation pipeline, operation {position}: {op.name} draws at random, and an "
                    "evaluation must give the "
                    f"same number every time; use {_INSTEAD.get(op.name, 'an operation without randomness')}"
                )
            made.append(op)
            given.append(ident)
        self._ops = tuple(made)
        self._ids = _fill_ids(given)
        self.evaluation = bool(evaluation)
        try:
            self._core = _core.Pipeline(
                [(o.name, i, o.config()) for o, i in zip(self._ops, self._ids, strict=True)]
            )
        except ValueError as error:
            raise RecipeError(str(error)) from None

    # ---- running ----

    def run(
        self, images: Images, ids: Any, epoch: int = 0, seed: int = 0, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Pictures through every operation but Normalize, which belongs to the network's first layer.

        Parameters
        ----------
        images : sequence of uint8 (H, W, C) or (H, W)
            C 1 or 3, the same for all; sizes may differ.
        ids : sequence of int, one per picture
            The samples' manifest indices: the coordinate of their draws.
        epoch, seed : int
            The other coordinates.
        out : uint8 (n, OH, OW, C), optional
            Where to write.

        Returns
        -------
        uint8 (n, OH, OW, C)

        Raises
        ------
        ShapeError
            A picture that cannot be used, or results of different sizes; names the sample's id.
        """
        return self._core.run(images, ids, epoch, seed, out)

    def __call__(self, images: Images, ids: Any = None, epoch: int = 0, seed: int = 0) -> NDArray[Any]:
        """What the network is fed: float32 (n, C, H, W) after Normalize, else uint8 (n, H, W, C).

        The floats have the bits of the fused path. `ids` may be left out where nothing is random.
        """
        if ids is None:
            if self.random:
                raise ValueError(
                    "pipeline: ids must be given, for an operation draws by them; evaluation needs none"
                )
            ids = np.arange(len(images), dtype=np.int64)
        if self.mean is None:
            return self._core.run(images, ids, epoch, seed)
        return self._core.run_float(images, ids, epoch, seed)

    def drawn(
        self, images: Images, ids: Any, epoch: int = 0, seed: int = 0
    ) -> list[dict[int, dict[str, Any]]]:
        """For each picture, what each random operation draws: ``{id: {"name": …, "top": …}}``.

        Only the pictures' sizes matter.
        """
        return self._core.params(images, ids, epoch, seed)

    def labels(self, images: Images, ids: Any, epoch: int = 0, seed: int = 0) -> list[str]:
        """A line per picture that says what was drawn for it, to be shown beside it.

        Examples
        --------
        >>> pipe = Pipeline(["RandomHorizontalFlip"])
        >>> pipe.labels([np.zeros((2, 2, 3), np.uint8)], [0])[0] in ("flipped", "")
        True
        """
        return [
            ", ".join(filter(None, map(_label, ops.values()))) for ops in self.drawn(images, ids, epoch, seed)
        ]

    # ---- what it is ----

    @property
    def ops(self) -> tuple[Augment, ...]:
        """The operations, in order."""
        return self._ops

    @property
    def ids(self) -> tuple[int, ...]:
        """Their fixed numbers."""
        return self._ids

    @property
    def random(self) -> bool:
        """True when an operation draws."""
        return self._core.random

    @property
    def mean(self) -> float | tuple[float, ...] | None:
        """Normalize's mean, or None where there is none."""
        return self._core.mean

    @property
    def std(self) -> float | tuple[float, ...] | None:
        """Normalize's standard deviation, or None."""
        return self._core.std

    def output_shape(self, h: int, w: int, c: int) -> tuple[int, int, int, bool]:
        """(h, w, c) of the result for a picture (h, w, c), and whether every picture gives that size."""
        return self._core.output_shape(h, w, c)

    def config(self) -> list[dict[str, Any]]:
        """``[{"name", "id", **all parameters}, …]``: plain data that makes the same pipeline again."""
        return [{"name": o.name, "id": i, **o.config()} for o, i in zip(self._ops, self._ids, strict=True)]

    @classmethod
    def from_config(cls, config: Sequence[Mapping[str, Any]], *, evaluation: bool = False) -> Pipeline:
        """The pipeline that `config` gave."""
        return cls(list(config), evaluation=evaluation)

    @property
    def digest(self) -> str:
        """SHA-256 of the config: two pipelines with the same digest do the same to every picture.

        Ids count only where they decide draws.
        """
        plain = [
            {k: v for k, v in op.items() if k != "id" or o.random}
            for op, o in zip(self.config(), self._ops, strict=True)
        ]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Augment]:
        return iter(self._ops)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pipeline):
            return NotImplemented
        return self._ops == other._ops and self._ids == other._ids and self.evaluation == other.evaluation

    def __hash__(self) -> int:
        return hash((self._ops, self._ids, self.evaluation))

    def __repr__(self) -> str:
        return (
            f"Pipeline([{', '.join(map(repr, self._ops))}]{', evaluation=True' if self.evaluation else ''})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self.config(), self.evaluation)


def _remake(config: list[dict[str, Any]], evaluation: bool) -> Pipeline:
    return Pipeline(config, evaluation=evaluation)


def _read(item: Any, position: int) -> tuple[Augment, int | None]:
    """An operation in any of its forms, and its id where one was given."""
    ident = None
    if isinstance(item, Mapping):
        item = dict(item)
        ident = item.pop("id", None)
        if ident is not None and (
            isinstance(ident, bool) or not isinstance(ident, int) or not 0 <= ident < 2**32
        ):
            raise RecipeError(
                f"pipeline, operation {position}: id must be a whole number in [0, 2^32), got {ident!r}"
            )
        if "name" not in item and len(item) == 1:  # {Resize: {size: 256}}
            ((name, inner),) = item.items()
            item = {"name": name, **(inner if isinstance(inner, Mapping) else {})}
    if isinstance(item, type) and issubclass(item, Augment):
        raise TypeError(
            f"pipeline, operation {position}: got the class {item.__name__}; call it: {item.__name__}(…)"
        )
    if not isinstance(item, (Augment, Mapping, str)):
        raise TypeError(
            f"pipeline, operation {position}: must be an object of gapless.augment, a dict or a name, "
            f"got {item!r}"
        )
    try:
        return from_config(item), ident
    except ValueError as error:
        raise RecipeError(f"pipeline, operation {position}: {error}") from None


def _fill_ids(given: Sequence[int | None]) -> tuple[int, ...]:
    """Every operation's number; those without one get the numbers after the largest."""
    free = max((i for i in given if i is not None), default=-1) + 1
    filled = []
    for ident in given:
        if ident is None:
            ident, free = free, free + 1
        filled.append(ident)
    return tuple(filled)


def _label(drawn: Mapping[str, Any]) -> str:
    """One operation's draws in a few words."""
    name = drawn["name"]
    values = {k: v for k, v in drawn.items() if k != "name"}
    if set(values) == {"flipped"}:
        return "flipped" if values["flipped"] else ""
    if {"top", "left", "height", "width"} <= set(values):
        return f"crop {values['height']:g}×{values['width']:g} at ({values['top']:g}, {values['left']:g})"
    if {"top", "left"} <= set(values):
        return f"crop at ({values['top']:g}, {values['left']:g})"
    return f"{name} " + " ".join(f"{k} {v:g}" for k, v in values.items())
