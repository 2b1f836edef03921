"""S8: files that cannot be read, or that other programs would read differently."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...data import decode
from ...data.scan import usable_cpus
from ..case import Case
from ..features import per_image_cost, thumbnail
from ..result import Picture, Remedy, Result
from ..stats import share
from ..table import check

__all__ = ["odd_files"]

MOST = 4000  # files opened again for their kind
USUAL = 0.9  # a property that nearly all files have is how this set is, not an oddity
WORDS = {
    decode.ALPHA: "alpha channel",
    decode.DEEP: "16 bits per channel",
    decode.CMYK: "CMYK",
    decode.ANIMATED: "animated",
    decode.ROTATED: "EXIF orientation",
}


def _cost(case: Case) -> float:
    if case.data is None or case.data.in_memory:
        return 0.0
    return min(len(case.data), MOST) * per_image_cost(case) / usable_cpus()


@check(
    "S8",
    "odd-files",
    "unreadable or unusual files",
    measure="share of listed files that cannot be read or need a rule that other programs lack",
    needs=["images"],
    cost=_cost,
    explains=["S7"],
    reference="ultralytics #23630 (EXIF honoured for one file and not for a list: 99 % became 96 %)",
)
def odd_files(case: Case) -> Result:
    """Counts files that were left out unread, and those with CMYK, 16 bits, alpha, animation or EXIF turns.

    gapless decodes each by one written rule everywhere; a program that reads them otherwise sees other
    pixels, and a set where one class has more of them teaches the kind of file.
    """
    data = case.data
    assert data is not None
    bad = data.unreadable
    total = len(data) + len(bad)
    looked, kinds = _kinds(case)
    odd = {word: ids for word, ids in kinds.items() if len(ids) < USUAL * max(looked, 1)}
    every = set().union(*odd.values()) if odd else set()
    scale = len(data) / max(looked, 1)
    count = len(bad) + round(len(every) * scale)
    numbers = {
        "unreadable": [{"id": u.id, "reason": u.reason, "split": u.split} for u in bad[:50]],
        "unreadable_count": len(bad),
        "kinds": {word: {"count": len(ids), "ids": sorted(ids)[:50]} for word, ids in odd.items()},
        "usual": sorted(set(kinds) - set(odd)),
        "looked_at": looked,
    }
    if not count:
        return Result.clear(f"all {total:,} images are plain and readable", share(0, total, 1.0))
    parts = [f"{len(bad):,} cannot be read and are left out"] if bad else []
    parts += [f"{len(ids):,} with {word}" for word, ids in sorted(odd.items())]
    part = "" if looked == len(data) or data.in_memory else f" (of {looked:,} looked at)"
    says = f"{count:,} of {total:,} files are odd{part}: {', '.join(parts)}"
    pictures = [
        Picture(thumbnail(data, data.index_of(i)), f"{i}: {word}")
        for word, ids in sorted(odd.items())
        for i in sorted(ids)[:4]
    ]
    e = share(len(bad) + len(every), len(bad) + looked) if looked else share(count, total)
    remedy = Remedy(
        "Repair or remove the unreadable files; save the others as plain upright 8-bit RGB, so that every "
        "program sees the same pixels."
    )
    return Result.found(says, e, evidence=numbers, remedy=remedy, pictures=pictures[:24])


def _kinds(case: Case) -> tuple[int, dict[str, set[str]]]:
    """How many files were opened for their kind, and the ids of each kind."""
    data = case.data
    assert data is not None
    if data.in_memory or data._paths is None:
        return 0 if not data.unreadable else len(data), {}
    order = np.arange(len(data))
    if len(order) > MOST:
        order = np.sort(np.random.default_rng([case.seed, 8]).permutation(len(order))[:MOST])
    paths = [data._paths[int(data._positions[i])] for i in order]

    def flags(path: str) -> int:
        try:
            return decode.read_flags(path)[1]
        except decode.DecodeError:
            return 0

    found: dict[str, set[str]] = {}
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for i, bits in zip(order, pool.map(flags, paths), strict=True):
            if i % 256 == 0:
                case.budget.ask()
            for bit, word in WORDS.items():
                if bits & bit:
                    found.setdefault(word, set()).add(data.ids[int(i)])
    return len(order), found
