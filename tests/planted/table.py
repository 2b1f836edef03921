"""The rows, the totals, and the bounds that they are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BOUNDS", "Row", "Seen", "Told", "Totals", "line", "tell", "text"]


@dataclass(frozen=True)
class Seen:
    """A finding: id, points, interval."""

    id: str
    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Told:
    """A planted cause and what the diagnosis says of it.

    Attributes
    ----------
    check : str
    truth : float or None
        Its true size in the check's measure; None where planting failed.
    rank : int or None
        1 for the first finding; None: it is none.
    found : Seen or None
    """

    check: str
    truth: float | None = None
    rank: int | None = None
    found: Seen | None = None

    @property
    def covered(self) -> bool | None:
        """Whether the truth lies in the stated interval; None where it was not found."""
        if self.found is None or self.truth is None:
            return None
        return self.found.low - 1e-9 <= self.truth <= self.found.high + 1e-9


@dataclass(frozen=True)
class Row:
    """A case and its verdict.

    Attributes
    ----------
    name, set, seed
    told : tuple of Told
        One per planted cause; empty for a clean run.
    seen : tuple of Seen
        All findings, in their order.
    sums : bool or None
        Whether the waterfall's steps sum to the gap to the last count; None: it has none.
    prepared, seconds : float
        Processor seconds of planting (with training and counterfactuals) and of the diagnosis.
    error : str or None
        Why there is no diagnosis.
    broken : tuple of str
        Checks that failed with an exception.
    outcomes, causes, slow, says : dict
        By check: outcome of the planted ones, whose consequence it is, seconds of the slow ones, its
        sentence.
    """

    name: str
    set: str
    seed: int
    told: tuple[Told, ...] = ()
    seen: tuple[Seen, ...] = ()
    sums: bool | None = None
    prepared: float = 0.0
    seconds: float = 0.0
    error: str | None = None
    broken: tuple[str, ...] = ()
    outcomes: dict[str, str] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    says: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing was planted."""
        return not self.told

    @property
    def small(self) -> bool:
        """Whether a planted cause costs less in this run than a finding does: by definition it is none."""
        return any(t.truth is not None and abs(t.truth) < LEAST for t in self.told)

    @property
    def first(self) -> bool:
        """Whether a planted cause is the first finding."""
        return any(t.rank == 1 for t in self.told)

    @property
    def among_three(self) -> bool:
        """Whether every planted cause is among the first three findings."""
        return all(t.rank is not None and t.rank <= 3 for t in self.told)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "fault": self.name,
            "set": self.set,
            "seed": self.seed,
            "planted": [
                {"check": t.check, "truth": t.truth, "rank": t.rank, "covered": t.covered} for t in self.told
            ],
            "findings": [{"id": s.id, "points": s.points, "low": s.low, "high": s.high} for s in self.seen],
            "waterfall_sums": self.sums,
            "seconds": round(self.seconds, 2),
            "seconds_of_planting": round(self.prepared, 2),
            "error": self.error,
            "broken": list(self.broken),
            "outcomes": self.outcomes,
            "causes": self.causes,
            "slow": self.slow,
            "says": self.says,
        }


#: Points that a finding has at least.
LEAST = 0.02

#: What is asked: share or number, and whether it is a least or a most.
BOUNDS = {
    "first": 0.95,
    "among_three": 1.0,
    "false_alarms": 1,  # in 20 clean runs
    "covered": 0.90,
    "sums": 1.0,
}


@dataclass(frozen=True)
class Totals:
    """What the table adds up to.

    Attributes
    ----------
    planted, small, clean : int
        Rows with causes that a finding can be of; those with one that is too small for that in this run;
        rows without any.
    first, among_three : int
        Planted rows whose (one) cause is first, and whose causes are all among the first three.
    false_alarms : int
        Clean runs with a finding.
    found, covered : int
        Planted causes that were found, and those whose true size is inside the stated interval.
    falls, sums : int
        Runs with a waterfall, and those whose steps sum to the gap.
    broken : int
        Rows with an error or a check that failed.
    seconds : float
        Processor seconds of everything.
    """

    planted: int
    small: int
    clean: int
    first: int
    among_three: int
    false_alarms: int
    found: int
    covered: int
    falls: int
    sums: int
    broken: int
    seconds: float

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Totals:
        """Of all rows."""
        planted = [r for r in rows if not r.clean and not r.small]
        clean = [r for r in rows if r.clean]
        told = [t for r in rows for t in r.told]
        falls = [r for r in rows if r.sums is not None]
        return cls(
            planted=len(planted),
            small=sum(r.small for r in rows),
            clean=len(clean),
            first=sum(r.first for r in planted),
            among_three=sum(r.among_three for r in planted),
            false_alarms=sum(bool(r.seen) for r in clean),
            found=sum(t.found is not None for t in told),
            covered=sum(t.covered is True for t in told),
            falls=len(falls),
            sums=sum(bool(r.sums) for r in falls),
            broken=sum(r.error is not None or bool(r.broken) for r in rows),
            seconds=sum(r.prepared + r.seconds for r in rows),
        )

    def missed(self) -> list[str]:
        """The bounds that do not hold, each in a sentence."""
        out = []

        def least(what: str, count: int, n: int, share: float) -> None:
            if n and count < share * n:
                out.append(f"{what}: {count} of {n}, at least {100 * share:g} % are asked for")

        least("the planted cause is the first finding", self.first, self.planted, BOUNDS["first"])
        least(
            "every planted cause is among the first three",
            self.among_three,
            self.planted,
            BOUNDS["among_three"],
        )
        least("the true size is inside the interval", self.covered, self.found, BOUNDS["covered"])
        least("the waterfall sums to the gap", self.sums, self.falls, BOUNDS["sums"])
        allowed = BOUNDS["false_alarms"] * max(1.0, self.clean / 20)
        if self.false_alarms > allowed:
            out.append(f"false alarms: {self.false_alarms} of {self.clean} clean runs, at most {allowed:g}")
        if self.broken:
            out.append(f"{self.broken} runs with an error or a check that failed")
        return out


# -- text ---------------------------------------------------------------------------------------

_HEAD = (
    f"{'fault':44} {'set':8} {'seed':>4}  {'first finding':26} {'planted':7} {'rank':>4} "
    f"{'points':>7} {'interval':>17} {'truth':>7} {'inside':6} {'sums':4} {'s':>5}"
)


def line(row: Row) -> str:
    """The row as text: one line per planted cause."""
    first = _points(row.seen[0]) if row.seen else (f"error: {row.error}" if row.error else "none")
    lines = []
    for i, t in enumerate(row.told or (None,)):
        head = f"{row.name[:44]:44} {row.set:8} {row.seed:4d}  {first[:26]:26}" if i == 0 else " " * 86
        if t is None:
            told = f" {'':7} {'':4} {'':7} {'':17} {'':7} {'':6}"
        else:
            f = t.found
            told = (
                f" {t.check:7} {t.rank or '-':>4} {_percent(f.points if f else None):>7} "
                f"{f'[{100 * f.low:+.1f}, {100 * f.high:+.1f}]' if f else row.outcomes.get(t.check, ''):>17} "
                f"{_percent(t.truth):>7} {'-' if t.covered is None else 'yes' if t.covered else 'NO':6}"
            )
        tail = (
            f" {'' if row.sums is None else 'yes' if row.sums else 'NO':4} {row.prepared + row.seconds:5.1f}"
        )
        lines.append(head + told + (tail if i == 0 else ""))
    if row.broken:
        lines.append(f"    checks that failed: {', '.join(row.broken)}")
    return "\n".join(lines)


def tell(row: Row) -> None:
    """Print the row as soon as it is there."""
    print(line(row), flush=True)


def _points(seen: Seen) -> str:
    return f"{seen.id} {100 * seen.points:+.1f} [{100 * seen.low:+.1f}, {100 * seen.high:+.1f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def text(rows: Sequence[Row], *, body: bool = True) -> str:
    """The whole table, the totals, and what does not hold."""
    t = Totals.of(rows)
    out = [_HEAD, *map(line, rows), ""] if body else []

    def share(count: int, n: int) -> str:
        return f"{count} of {n}" + (f" ({100 * count / n:.1f} %)" if n else "")

    out += [
        f"planted cause first:           {share(t.first, t.planted)}; asked: 95 %",
        f"all planted among first three: {share(t.among_three, t.planted)}; asked: 100 %",
        f"of under 2 points, so none:    {t.small} (not among these)",
        f"false alarms in clean runs:    {share(t.false_alarms, t.clean)}; asked: at most 1 in 20",
        f"true size inside the interval: {share(t.covered, t.found)}; asked: 90 %",
        f"waterfall sums to the gap:     {share(t.sums, t.falls)}; asked: all",
        f"processor time:                {t.seconds:.0f} s",
    ]
    missed = t.missed()
    out += ["", *(f"NOT MET: {m}" for m in missed)] if missed else ["", "all bounds hold"]
    return "\n".join(out)
