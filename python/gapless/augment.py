"""Augmentations, one class per row of the C core's table; a list of them is a pipeline.

They are plain values: what they hold is their config. What runs them is `gapless.data.pipeline.Pipeline`.

>>> from gapless import augment
>>> augment.RandomResizedCrop(224, scale=(0.2, 1.0))
RandomResizedCrop(224, scale=(0.2, 1.0))
>>> augment.RandomHorizontalFlip.random, augment.CenterCrop.random
(True, False)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gapless._registry import Configured, make_classes

__all__ = ["Augment"]  # and the rows' names, added below


class Augment(Configured):
    """Base of the augmentations.

    Attributes
    ----------
    random : bool
        It draws numbers; an evaluation pipeline refuses it.
    last : bool
        It must be the last of its pipeline.
    """

    random: ClassVar[bool]
    last: ClassVar[bool]


globals().update(_classes := make_classes("augments", Augment, __name__))
for _class in _classes.values():
    _class.random = _class._row.facts["random"]
    _class.last = _class._row.facts["last"]
__all__ += sorted(_classes)


def from_config(config: Mapping[str, Any] | str | Augment) -> Augment:
    """The augmentation that ``{"name": …, **parameters}``, or a name alone, describes.

    Examples
    --------
    >>> from_config({"name": "CenterCrop", "size": 32})
    CenterCrop(32)
    """
    if isinstance(config, Augment):
        return config
    given = {"name": config} if isinstance(config, str) else dict(config)
    name = given.get("name")
    if name not in _classes:
        raise ValueError(f"augment: there is no {name!r}; there are {', '.join(sorted(_classes))}")
    made: Augment = _classes[name].from_config(given)
    return made
