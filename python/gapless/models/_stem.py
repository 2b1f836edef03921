"""Which stem a network begins with: that of small pictures keeps the resolution, the other does not."""

from __future__ import annotations

__all__ = ["check_stem", "choose_stem"]

_STEMS = ("auto", "cifar", "imagenet")
_CIFAR_SIZE = 64  # pixels: up to here the stem keeps the resolution


def check_stem(stem: str) -> str:
    """Give `stem` back, or say which there are."""
    if stem not in _STEMS:
        raise ValueError(f"stem must be one of {', '.join(map(repr, _STEMS))}, got {stem!r}")
    return stem


def choose_stem(stem: str, image_size: tuple[int, int] | None, input_shape: tuple[int, ...] | None) -> str:
    """``"cifar"`` or ``"imagenet"``: as asked, else by the longer side; "imagenet" where no size is known."""
    if stem != "auto":
        return stem
    size = image_size or (
        tuple(input_shape[1:]) if input_shape is not None and len(input_shape) == 3 else None
    )
    return "cifar" if size is not None and max(size) <= _CIFAR_SIZE else "imagenet"
