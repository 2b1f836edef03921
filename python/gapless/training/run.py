"""Run: what `gapless.train` returns, and what a run's folder is read as."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..record import EvalRecord

if TYPE_CHECKING:
    from ..predict import Model

__all__ = ["Run"]


@dataclass
class Run:
    """A training run.

    Attributes
    ----------
    out : Path
        Its folder.
    best, last : Path or None
        Checkpoints: the one that `monitor` chose, and the newest. None where nothing was saved.
    record : EvalRecord or None
        The record that chose `best`: what ``gapless.evaluate(run)`` reproduces.
    records : dict of str to EvalRecord
        Every record of `best`: ``val``, ``train/clean`` and, when asked, ``test``.
    history : list of dict
        A row per epoch. Rates are fractions; ``train/running/…`` is never mixed with ``train/clean/…``.
    interrupted : bool
        Ctrl-C ended it; ``gapless.train(resume=run.out)`` goes on to the bit.
    epochs : int
        Epochs that were finished.
    seconds, images_per_second : float
        Time of training and evaluation, and training images per second of training.
    """

    out: Path
    best: Path | None
    last: Path | None
    record: EvalRecord | None
    records: dict[str, EvalRecord] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    epochs: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0

    @classmethod
    def open(cls, out: str | Path) -> Run:
        """Read a run's folder."""
        from .. import checkpoint

        folder = Path(out).resolve()
        paths = {n: p if (p := folder / f"{n}.safetensors").exists() else None for n in ("best", "last")}
        newest = paths["last"] or paths["best"]
        if newest is None:
            raise CheckpointError(
                f"{folder}: no best.safetensors or last.safetensors: not a run, or nothing was saved"
            )
        last = checkpoint.read(newest)
        chosen = checkpoint.read(paths["best"] or newest)
        with checkpoint.fitting(last):
            return cls.of(folder, paths["best"], paths["last"], chosen.documents, last.documents)

    @classmethod
    def of(
        cls,
        out: Path,
        best: Path | None,
        last: Path | None,
        chosen: Mapping[str, Any],
        newest: Mapping[str, Any],
    ) -> Run:
        """From the documents of the best and of the newest checkpoint."""
        records = {k: EvalRecord.from_dict(v) for k, v in chosen["records"].items()}
        state = newest["state"]
        return cls(
            out=out,
            best=best,
            last=last,
            record=records.get(chosen["state"]["record"] or ""),
            records=records,
            history=list(newest["history"]),
            interrupted=bool(state["interrupted"]),
            epochs=int(state["epoch"]),
            seconds=float(state["seconds"]),
            images_per_second=state["images"] / state["training_seconds"]
            if state["training_seconds"]
            else 0.0,
        )

    def load(self) -> Model:
        """The model of `best`, for predicting."""
        from ..predict import load

        return load(self.best or self.last or self.out)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``: the best checkpoint's record, and where and how long."""
        record = self.record.to_dict() if self.record is not None else {}
        return {
            **record,
            "out": str(self.out),
            "best": str(self.best) if self.best else None,
            "last": str(self.last) if self.last else None,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "interrupted": self.interrupted,
            "records": {name: r.to_dict() for name, r in self.records.items() if r is not self.record},
        }

    def __repr__(self) -> str:
        end = ", interrupted" if self.interrupted else ""
        return f"Run({self.out}: {self.epochs} epochs in {self.seconds:.1f} s{end}; best {self.record!r})"

    def _repr_html_(self) -> str:
        cells = [
            (
                name,
                f"<b>{r.top1:.4f}</b>",
                "{:.4f} to {:.4f}".format(*r.interval),
                f"{r.correct[1]}/{r.n_scored}",
                f"{r.loss:.4f}",
            )
            for name, r in self.records.items()
        ]
        rows = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells)
        head = "".join(f"<th>{h}</th>" for h in ("best on", "top-1", "95 % interval", "right", "loss"))
        end = "interrupted" if self.interrupted else "finished"
        where = (
            f"<code>{html.escape(str(self.out))}</code>: {self.epochs} epochs, {end}, {self.seconds:.1f} s"
        )
        return f"<p>{where}</p><table><tr>{head}</tr>{rows}</table>{self._curves()}"

    def _curves(self) -> str:
        path = self.out / "curves.png"
        if not path.exists():
            return ""
        data = base64.b64encode(path.read_bytes()).decode()
        return f"<img style='max-width:100%' src='data:image/png;base64,{data}'>"
