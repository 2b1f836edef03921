"""S6: pictures of one group (a video, a burst, a patient) on both sides of the split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...data.split import canonical_split
from .. import features
from ..case import Case
from ..leaks import judged
from ..result import Remedy, Result
from ..table import check

__all__ = ["group_leakage"]

COLUMNS = ("group", "patient", "subject", "person", "video", "clip", "session", "scene", "camera", "device")
LARGEST = 0.2  # a group with more of all samples than this is the set, not a group
MOST_EXIF = 4000
PAIRS = 4000


@check(
    "S6",
    "group-leakage",
    "pictures of one group are on both sides of the split",
    measure="validation accuracy on groups that training does not have minus accuracy; without a model, or "
    "where all groups are torn, the share of validation samples whose group training has (negative)",
    needs=["splits"],
    cost=lambda case: features.look_cost(case) + 1.0,
    explains=["S5", "G2"],
    reference="stefyste/RIAWELC #2, HULKs/hulk #2831 (98 % of validation shares a recording with training)",
)
def group_leakage(case: Case) -> Result:
    """Finds groups by a column of the list, by file names, or by EXIF, and counts the torn ones.

    A name says little by itself (one folder of numbered files is no group): the pictures of a group must also
    be more alike than other pictures of the same class, by a permutation of groups within classes.
    """
    data = case.data
    assert data is not None
    train, val = data.indices("train"), data.indices("val")
    tried, worst = {}, None
    for name, keys in _groupings(case):
        of_train = {keys[i] for i in train} - {""}
        torn = [int(v) for v in val if keys[v] in of_train]
        alike, p = _alike(case, keys)
        tried[name] = {"torn": len(torn), "groups": len(set(keys)), "alike": alike, "p": p}
        if torn and alike > 0 and p < 0.001 and (worst is None or len(torn) > len(worst[1])):
            worst = (name, torn, keys)
    if worst is None:
        return Result.clear(
            "no groups of pictures are known here"
            if not tried
            else f"no group of alike pictures is on both sides (looked at {', '.join(tried)})",
            evidence={"groupings": tried},
        )
    name, torn, keys = worst
    first: dict[str, int] = {}
    for i in train:
        first.setdefault(keys[i], int(i))
    pairs = [(first[keys[v]], v) for v in torn]
    return judged(
        case,
        torn,
        pairs,
        what=f"of a group that training has too (by {name}, such as {keys[torn[0]]!r})",
        clear="",
        evidence={"groupings": tried, "by": name},
        remedy=Remedy(
            "Draw the split with group_by= so that each group is on one side; accuracy on new groups is what "
            "matters.",
        ),
    )


def _groupings(case: Case) -> list[tuple[str, list[str]]]:
    """Ways to group that could mean something: name, and a key per sample ("" for none)."""
    data = case.data
    assert data is not None
    ways: list[tuple[str, list[str]]] = []
    for column, values in data.columns.items():
        if any(word in column.lower() for word in COLUMNS):
            ways.append((f"column {column}", [f"{column} {v}" if v else "" for v in values]))
    ways.append(
        ("file names", [stem(i, data.classes[c]) for i, c in zip(data.ids, data.labels, strict=True)])
    )
    if not data.in_memory and data._paths is not None:
        ways.append(("EXIF time and device", _taken(case)))
    return [(name, keys) for name, keys in ways if _plausible(keys, data.labels)]


def _plausible(keys: Sequence[str], labels: NDArray[np.int64]) -> bool:
    """Whether keys could be groups: several, of several samples each, and not simply the classes."""
    named = [k for k in keys if k]
    if len(named) < 0.02 * len(keys) or not named:
        return False
    sizes: dict[str, int] = {}
    for k in named:
        sizes[k] = sizes.get(k, 0) + 1
    several = [n for n in sizes.values() if n > 1]
    classes = len(np.unique(labels))
    return bool(
        len(several) >= 5
        and len(sizes) > classes + 2
        and sum(several) >= 0.02 * len(keys)
        and max(sizes.values()) <= max(LARGEST * len(keys), 2)
    )


def stem(ident: str, label: str = "") -> str:
    """What is left of an id without its split folder, extension and last number; "" where no number is.

    >>> stem("train/cats/video07_frame0012.jpg"), stem("0012")
    ('cats/video07_frame', '')
    """
    parts = [p for p in re.split(r"[\\\\/]", ident) if canonical_split(p) is None]
    if not parts:
        return ""
    name = os.path.splitext(parts[-1])[0]
    match = re.match(r"^(.*?)(\d+)\D*$", name)
    if match is None:
        return ""
    left = "/".join([*parts[:-1], match.group(1)])
    # a name that has no number but the one taken off is a counter over the folder, unless the folder counts
    rest = left[len(label) :] if label and left.startswith(label) else left
    return left if re.search(r"\d", rest) else ""


def _taken(case: Case) -> list[str]:
    """Device and second of each picture, from its EXIF; "" where it does not say."""
    from PIL import Image

    data = case.data
    assert data is not None
    assert data._paths is not None
    keys = [""] * len(data)
    order = np.arange(len(data))
    if len(order) > MOST_EXIF:
        order = np.random.default_rng([case.seed, 6]).permutation(len(order))[:MOST_EXIF]
    for k, i in enumerate(order):
        if k % 256 == 0:
            case.budget.ask()
        try:
            with Image.open(data._paths[int(data._positions[i])]) as image:
                exif = image.getexif()
                inner = exif.get_ifd(0x8769)
        except (OSError, ValueError, SyntaxError):
            continue
        when = inner.get(0x9003) or exif.get(0x0132)
        if when:
            keys[int(i)] = f"{exif.get(0x010F, '')} {exif.get(0x0110, '')} {when}".strip()
    return keys


def _alike(case: Case, keys: Sequence[str]) -> tuple[float, float]:
    """How much nearer pictures of a group are than others of their class, and the chance of that.

    The mean distance of pairs within groups, over its mean when groups are permuted within classes, minus 1,
    with the sign turned: 0.2 is a fifth nearer.
    """
    data = case.data
    assert data is not None
    both = [
        (features.look(case, s), x) for s, x in zip(("train", "val"), features.standard(case), strict=True)
    ]
    at = np.concatenate([looked.indices for looked, _ in both])
    x = np.concatenate([m for _, m in both]).astype(np.float64)
    label = data.labels[at]
    code = {k: j for j, k in enumerate(sorted(set(keys)))}
    group = np.array([code[keys[i]] if keys[i] else -1 for i in at])
    rng = np.random.default_rng([case.seed, 66])
    a, b = _pairs(group, rng)
    if len(a) < 5:
        return 0.0, 1.0
    distance = np.linalg.norm(x[a] - x[b], axis=1)
    null = []
    members = {c: np.flatnonzero(label == c) for c in np.unique(label)}
    for _ in range(20):
        other = np.array([rng.choice(members[c]) for c in label[b]])
        apart = other != a
        null.append(np.linalg.norm(x[a] - x[other], axis=1)[apart].mean())
    centre, spread = float(np.mean(null)), float(np.std(null, ddof=1))
    z = (centre - distance.mean()) / max(np.hypot(spread, distance.std() / np.sqrt(len(a))), 1e-12)
    from scipy.stats import norm

    return float(1 - distance.mean() / max(centre, 1e-12)), float(2 * norm.sf(abs(z)))


def _pairs(group: NDArray[np.int64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of samples next to each other in a shuffled order of their group."""
    order = rng.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]
    same = (group[order[1:]] == group[order[:-1]]) & (group[order[1:]] >= 0)
    a, b = order[:-1][same], order[1:][same]
    if len(a) > PAIRS:
        pick = rng.permutation(len(a))[:PAIRS]
        a, b = a[pick], b[pick]
    return a, b
