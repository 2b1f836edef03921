"""Splitting samples into train, val and test: a function of (seed, labels, groups), and of nothing else.

Draws are counter-based (Philox4x32-10, stream 5, as in the C core), one per sample, so that the same list
gives the same split on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gapless.errors import DataError

__all__ = ["DEFAULT", "canonical_split", "fractions_of", "grouped", "philox_blocks", "stratified"]

DEFAULT = {"train": 0.8, "val": 0.2}
STREAM_SPLIT = 5

_NAMES = {1: ("train",), 2: ("train", "val"), 3: ("train", "val", "test"), 4: ("train", "val", "test", "dev")}
_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "dev": "dev",
}


def canonical_split(name: str) -> str | None:
    """``validation`` -> ``val`` and the like; None for a word that names no split.

    Examples
    --------
    >>> canonical_split("Valid"), canonical_split("cats")
    ('val', None)
    """
    return _ALIASES.get(name.strip().lower())


def philox_blocks(
    seed: int, stream: int, samples: NDArray[np.integer], *, epoch: int = 0, op: int = 0, draw: int = 0
) -> NDArray[np.uint32]:
    """One block of four 32-bit words per sample: the numbers of ``gap_rng_block`` in the C core.

    Parameters
    ----------
    seed, stream, epoch, op, draw : int
        The place of the draw.
    samples : array of int, shape (n,)
        The third coordinate.

    Returns
    -------
    ndarray of uint32, shape (n, 4)

    Examples
    --------
    >>> [hex(w) for w in philox_blocks(0, 0, np.array([0]))[0]]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    low = np.uint64(0xFFFFFFFF)
    k0 = seed & 0xFFFFFFFF
    k1 = ((seed >> 32) & 0xFFFFFFFF) ^ ((stream * 0x9E3779B9) & 0xFFFFFFFF)
    c1 = np.asarray(samples).astype(np.uint64) & low
    c0, c2, c3 = (np.full_like(c1, v & 0xFFFFFFFF) for v in (epoch, op, draw))
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0)
        c2 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & low, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def fractions_of(split: object) -> dict[str, float]:
    """The named fractions that a ``split=`` of numbers means.

    Examples
    --------
    >>> fractions_of((0.8, 0.1, 0.1))
    {'train': 0.8, 'val': 0.1, 'test': 0.1}
    >>> fractions_of({"train": 0.9, "dev": 0.1})
    {'train': 0.9, 'dev': 0.1}
    """
    if isinstance(split, Mapping):
        parts = dict(split)
        for name in parts:
            if canonical_split(str(name)) != name:
                raise DataError(f"split: {name!r} is not a split; known are train, val, test, dev")
    elif isinstance(split, Sequence) and not isinstance(split, str) and 1 <= len(split) <= 4:
        parts = dict(zip(_NAMES[len(split)], split, strict=True))
    else:
        raise DataError(
            "split: expected up to four fractions such as (0.8, 0.1, 0.1) for train, val, test, got "
            f"{split!r}"
        )
    for name, share in parts.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise DataError(f"split: the share of {name} must be a number between 0 and 1, got {share!r}")
    if abs(sum(parts.values()) - 1) > 1e-6:
        hint = "; fractions are wanted, not counts" if sum(parts.values()) > 1.5 else ""
        raise DataError(f"split: the shares {parts} add up to {sum(parts.values()):g}, expected 1{hint}")
    return {name: float(share) for name, share in parts.items() if share > 0}


def _shares(n: int, fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    """n things shared out by largest remainder; each part gets one while there are enough."""
    exact = n * fractions
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    for k in order[: n - int(counts.sum())]:
        counts[k] += 1
    for k in range(len(counts)):
        if counts[k] == 0 and counts.max() > 1 and k < n:
            counts[int(counts.argmax())] -= 1
            counts[k] += 1
    if n < len(counts):  # fewer things than parts: the first parts get them
        counts[:] = 0
        counts[:n] = 1
    return counts


def _keys(seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    words = philox_blocks(seed, STREAM_SPLIT, indices).astype(np.uint64)
    return (words[:, 0] << np.uint64(32)) | words[:, 1]


def stratified(
    labels: NDArray[np.int64],
    fractions: Mapping[str, float],
    seed: int,
    indices: NDArray[np.int64] | None = None,
) -> list[str]:
    """A split name for each sample, with the same shares in every class.

    Parameters
    ----------
    labels : int64 array, shape (n,)
    fractions : mapping
        As `fractions_of` gives it.
    seed : int
    indices : int64 array, optional
        Numbers of the samples in the listing, from which their draws come; default 0..n-1.

    Returns
    -------
    list of str
        A class with at least as many samples as there are splits is in all of them.

    Examples
    --------
    >>> sorted(stratified(np.array([0] * 5 + [1] * 5), {"train": 0.8, "val": 0.2}, seed=0)).count("val")
    2
    """
    names = list(fractions)
    shares = np.array([fractions[k] for k in names])
    indices = np.arange(len(labels), dtype=np.int64) if indices is None else indices
    keys = _keys(seed, indices)
    part = np.zeros(len(labels), np.int64)
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        members = members[np.lexsort((members, keys[members]))]
        part[members] = np.repeat(np.arange(len(names)), _shares(len(members), shares))
    return [names[k] for k in part]


def grouped(
    labels: NDArray[np.int64], groups: Sequence[str], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """A split name for each sample, whole groups together, shares per class as near as the groups allow.

    Groups are dealt out from the largest to the smallest (ties by draw), each to the split that lacks most of
    the group's classes.

    Examples
    --------
    >>> parts = grouped(np.array([0, 0, 1, 1]), ["a", "a", "b", "b"], {"train": 0.5, "val": 0.5}, seed=0)
    >>> parts[0] == parts[1], parts[0] != parts[2]
    (True, True)
    """
    names, shares = list(fractions), np.array(list(fractions.values()))
    unique, of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    if len(unique) < len(names):
        raise DataError(
            f"group_by: {len(unique)} group(s) cannot fill {len(names)} splits ({', '.join(names)}); "
            "give fewer splits, or group by something finer"
        )
    sizes = np.bincount(of, minlength=len(unique))
    order = np.lexsort((np.arange(len(unique)), _keys(seed, np.arange(len(unique))), -sizes))
    n_classes = int(labels.max()) + 1 if len(labels) else 1
    per_class = np.bincount(labels, minlength=n_classes).astype(float)
    lack = shares[:, None] * per_class[None, :]  # (splits, classes): samples still wanted
    start = np.concatenate([[0], np.cumsum(sizes)])
    members = np.argsort(of, kind="stable")
    empty, part = set(range(len(names))), np.zeros(len(unique), np.int64)
    for done, g in enumerate(order):
        classes, counts = np.unique(labels[members[start[g] : start[g + 1]]], return_counts=True)
        need = (lack[:, classes] / np.maximum(per_class[classes], 1) * counts).sum(axis=1)
        if len(unique) - done <= len(empty):  # as many groups left as splits without one
            need[[k for k in range(len(names)) if k not in empty]] = -np.inf
        k = int(need.argmax())
        part[g] = k
        empty.discard(k)
        lack[k, classes] -= counts
    return [names[k] for k in part[of]]
