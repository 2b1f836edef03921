"""``python tests/planted``: the benchmark of planted faults as a table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is loaded; processes are what runs side by side
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(words: list[str] | None = None) -> int:
    """0: every bound holds; 1: one does not; 2: bad arguments."""
    from planted import bench, sets, table

    p = argparse.ArgumentParser(prog="python tests/planted", description=__doc__)
    p.add_argument(
        "--only", action="append", metavar="FAULT", help="a fault's name, a check's id, 'pairs' or 'clean'"
    )
    p.add_argument(
        "--set", action="append", choices=sets.available(), help="image set; default: all but fashion"
    )
    p.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2: those that are reported"
    )
    p.add_argument("--slice", action="store_true", help="the part that CI runs")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    p.add_argument("--keep", type=Path, help="folder for data and trained models; default: a temporary one")
    p.add_argument("--json", type=Path, metavar="FILE", help="write rows and totals there")
    p.add_argument("--list", action="store_true", help="name the faults and where they do not exist")
    given = p.parse_args(words)
    if given.list:
        print(listing())
        return 0
    which = bench.cases(given.only, given.set, given.seeds, given.slice)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="planted-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = bench.run(which, folder, given.jobs, tell=table.tell)
    print(f"\n{table.text(rows)}\nelapsed: {time.monotonic() - began:.0f} s with {given.jobs} processes")
    if given.json is not None:
        totals = table.Totals.of(rows)
        plain = {"rows": [r.to_dict() for r in rows], "totals": vars(totals), "missed": totals.missed()}
        given.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return 1 if table.Totals.of(rows).missed() else 0


def listing() -> str:
    """Every fault with its check, its place, what it does, and where it does not exist."""
    from planted.faults import FAULTS, NOT_PLANTED, PAIRS

    lines = []
    for f in FAULTS.values():
        said = " ".join((f.plant.__doc__ or "").split())
        lines.append(f"{f.check:3} {f.name:28} {f.place:8} {said}")
        lines += [f"    not on {s}: {why}" for s, why in f.not_on.items()]
    lines += [f"pair: {pair.name}" for pair in PAIRS]
    lines += [f"not planted: {check}: {why}" for check, why in NOT_PLANTED.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
