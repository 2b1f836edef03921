"""The one evaluate(): every number that gapless calls accuracy comes out of `Scorer.score`.

Training scores its validation and clean-training samples here, the command line and `gapless.evaluate` do,
and the last line of a run (the saved file scored again) does. There is no argument for preprocessing:
pipeline, precision, class order and k's come from the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core, metrics
from . import checkpoint as checkpoint_file
from .errors import CheckpointError, DataError, EvaluationMismatch, NonFiniteError, ShapeError
from .record import EvalRecord, Samples

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .data import Data
    from .data.pipeline import Pipeline

__all__ = ["Scorer", "evaluate", "find_checkpoint", "threads_set", "versions"]

Indices = NDArray[np.int64]

# What may differ between the recorded number and the one now, by named mode or kernel set: share of samples
# whose rightness may change, and relative difference of the loss. Everything else must be equal.
TOLERANCES = {"blas": (0.005, 1e-4), "bf16": (0.02, 2e-2), "bf16x3": (0.005, 1e-4)}
_MAY_DIFFER = {"correct", "loss", "per_class", "digests.outputs"}


def evaluate(
    checkpoint: str | os.PathLike[str] | Any,
    data: Any = None,
    split: str | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    *,
    verbose: int = 0,
) -> EvalRecord:
    """Score a checkpoint, by default on the very samples of its record, and compare with that record.

    Parameters
    ----------
    checkpoint : path or Run
        A checkpoint file, a run's folder (its ``best.safetensors``), or what `gapless.train` returned.
    data : Data, path or name, optional
        Default: the data of the checkpoint, opened again by its manifest. Other data are mapped to the
        checkpoint's classes by *name*.
    split : str, optional
        ``"val"``, ``"test"``, ``"train"``, ``"dev"``, ``"train/clean"`` or ``"all"``. Default: the record's
        own; for other data their ``val`` if they name one themselves, else all of their samples.
    batch_size, threads : int, optional
        For speed and memory only: no number depends on them.
    verbose : int, default 0
        1 shows a progress bar, and what differs within tolerance.

    Returns
    -------
    EvalRecord
        ``.reproduced`` is ``"exact"``, ``"within"`` (a named mode or the kernel set ``blas``; ``.differs``
        says what) or None (other samples than those of a record).

    Raises
    ------
    EvaluationMismatch
        The recorded samples gave another number; ``.record`` is what was measured, ``.differs`` field →
        (recorded, now).
    CheckpointError, DataError
        A checkpoint or data that cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> import gapless as gl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = gl.train(gl.Recipe(data="digits", model="lenet", epochs=1), out=f"{folder}/r", verbose=0)
    ...     val = gl.evaluate(run.best, batch_size=7, threads=1)
    ...     train = gl.evaluate(run.best, split="train")
    >>> val.split, val.n_scored, val.reproduced, val.correct == run.record.correct
    ('val', 359, 'exact', True)
    >>> train.split, train.n_scored, train.reproduced  # this split has no record to compare with
    ('train', 1438, None)
    """
    saved = checkpoint_file.read(find_checkpoint(checkpoint))
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: must be at least 1, got {batch_size}")
    with threads_set(threads):
        with checkpoint_file.fitting(saved):
            source, own = _data_of(saved, data)
            name, indices = _choose(saved, source, own, split)
            if not own:
                _warn_of_training_samples(saved, source, indices)
        scorer = Scorer.of_checkpoint(saved, source, batch_size=batch_size, threads=threads)
        bar = _Bar(len(indices), name) if verbose else None
        with contextlib.closing(bar) if bar else contextlib.nullcontext():
            now = scorer.score(indices, name, progress=bar.update if bar else None)
    return _compare(saved, now, verbose)


def find_checkpoint(checkpoint: Any) -> Path:
    """The file that is meant: itself, or a run's ``best.safetensors`` (else ``last.safetensors``)."""
    best = getattr(checkpoint, "best", None)
    path = Path(best if best is not None else checkpoint)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).exists():
                return path / name
        raise CheckpointError(
            f"{path}: no best.safetensors or last.safetensors in this folder: not a run, or nothing was saved"
        )
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file")
    return path


@contextlib.contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Use `threads` threads inside; afterwards as many as before."""
    if threads is None:
        yield
        return
    before = _core.get_num_threads()
    _core.set_num_threads(threads)
    try:
        yield
    finally:
        _core.set_num_threads(before)


def versions() -> dict[str, str]:
    """What a record says of the software that made it."""
    return {
        "gapless": str(_core.show_config()["version"]),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }


# -- the scorer -------------------------------------------------------------------------------


class Scorer:
    """A net of its own, restored from a graph document, that scores lists of samples.

    It shares nothing with a net that is being trained: weights are copied in by `load`, so scoring cannot
    change training, and it is the same code path whether the weights come from memory or from a file.

    Parameters
    ----------
    document : dict
        Graph document.
    data : Data
    pipeline : Pipeline
        Evaluation pipeline.
    loss : tuple of (name, config)
    precision : str
    topk : sequence of int
    classes : sequence of str
        The checkpoint's classes, by index; `data`'s are mapped to them by name.
    batch_size, threads : int, optional
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        data: Data,
        pipeline: Pipeline,
        *,
        loss: tuple[str, dict[str, Any]],
        precision: str,
        topk: Sequence[int],
        classes: Sequence[str],
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        from .nn import Net

        if data.classes != tuple(classes):
            data = data.mapped_to(classes)
        self.data, self.pipeline, self.classes = data, pipeline, tuple(classes)
        self.topk = metrics.check_topk(topk, len(self.classes))
        self.net = Net(document, seed=None)
        if self.net.num_classes != len(self.classes):
            raise ShapeError(
                f"the network has {self.net.num_classes} outputs, the data {len(self.classes)} classes"
            )
        self.precision, self.threads = precision, threads
        self.batch_size = batch_size or 64
        self._graph, self._loss = self.net.graph(), loss
        self.path: Path | None = None
        self.kind = "raw"
        self._lists: dict[bytes, str] = {}

    @classmethod
    def of_checkpoint(
        cls, saved: Checkpoint, data: Data, *, batch_size: int | None = None, threads: int | None = None
    ) -> Scorer:
        """The scorer that a checkpoint describes, with the weights that its record scored."""
        from .data.pipeline import Pipeline

        with checkpoint_file.fitting(saved):
            recipe = saved.recipe
            loss = dict(recipe["loss"])
            scorer = cls(
                saved.graph,
                data,
                Pipeline(recipe["eval"], evaluation=True),
                loss=(loss.pop("name"), loss),
                precision=recipe["precision"],
                topk=saved.state["topk"],
                classes=saved.manifest["classes"],
                batch_size=batch_size,
                threads=threads,
            )
            scorer.load(saved.scored(), saved.weights_kind)
        scorer.path = saved.path
        return scorer

    @functools.cached_property
    def plan(self) -> Any:
        """The compiled net, made when the first batch has come and has the size that the net takes.

        So a file that claims a huge input is refused before any memory is asked for.
        """
        with checkpoint_file.fitting(self) if self.path else contextlib.nullcontext():
            return _core.Plan(
                self._graph,
                self.net.store,
                batch=self.batch_size,
                training=False,
                precision=self.precision,
                mean=self.pipeline.mean,
                std=self.pipeline.std,
                input_dtype="uint8",
                loss=self._loss,
            )

    def load(self, weights: Mapping[str, NDArray[Any]], kind: str) -> None:
        """Copy weights and statistics in, strictly: every name and shape must fit."""
        self.net.load_state_dict(weights, strict=True)
        self.kind = kind

    def score(
        self,
        indices: Indices,
        split: str,
        *,
        progress: Callable[[int], object] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> EvalRecord:
        """Score exactly the listed samples.

        Parameters
        ----------
        indices : (n,) array of int64
            Manifest indices; they are scored in manifest order.
        split : str
            What the record calls the list.
        progress : callable, optional
            Called with the number of samples after each batch.
        stop : callable, optional
            Asked between batches; when it says True, `Stopped` is raised and nothing was recorded.

        Raises
        ------
        NonFiniteError
            A loss that is not finite; names the samples.
        """
        order = np.sort(np.asarray(indices, np.int64))
        if not len(order):
            raise DataError(f"split {split!r}: there is no sample to score")
        before = self.net.digest()
        samples = self._run(order, progress, stop)
        if self.net.digest() != before:
            raise RuntimeError("evaluation changed the weights: this is a bug of gapless, please report it")
        if len(samples.ids) != len(order):
            raise RuntimeError(
                f"split {split!r}: {len(order)} samples are listed, {len(samples.ids)} were scored"
            )
        return EvalRecord.of(
            samples,
            split=split,
            classes=self.classes,
            topk=self.topk,
            n_listed=len(order),
            n_unreadable=_unreadable(self.data, split),
            digests={"weights": before, "data": self._list_digest(order), "pipeline": self.pipeline.digest},
            weights_kind=self.kind,
            mode=self.precision,
            kernel_set=self.plan.kernel_set,
            blas=_core.show_config().get("blas") if self.plan.kernel_set == "blas" else None,
            versions=versions(),
        )

    def _run(
        self, order: Indices, progress: Callable[[int], object] | None, stop: Callable[[], bool] | None
    ) -> Samples:
        from .data import Loader

        n, k = len(order), len(self.classes)
        loss, pred = np.empty(n, np.float32), np.empty(n, np.int32)
        logits, seen, at = np.empty((n, k), np.float32), np.empty(n, np.int64), 0
        loader = Loader(
            self.data,
            order,
            self.pipeline,
            self.batch_size,
            epoch=0,
            seed=0,
            threads=self.threads,
        )
        with loader:
            for batch in loader:
                m = len(batch.ids)
                if at + m > n:
                    raise RuntimeError(f"the loader gave more than the {n} samples that are listed")
                place = slice(at, at + m)
                self._check_shape(batch.x, batch.ids)
                loss[place], pred[place], outputs = self.plan.evaluate(batch.x, batch.y)
                logits[place], seen[place] = outputs[0], batch.ids
                at += m
                if progress is not None:
                    progress(m)
                if stop is not None and stop():
                    raise Stopped
        if not np.array_equal(seen[:at], order):
            raise RuntimeError(f"{n} samples are listed, {at} were scored, or not in the order of the list")
        self._check_finite(order, loss, logits)
        labels = self.data.labels[order]
        ids = [self.data.ids[i] for i in order]
        return Samples(ids, labels, pred, loss, metrics.ranks(logits, labels), logits)

    def _check_shape(self, x: NDArray[Any], ids: Indices) -> None:
        want = tuple(self.net.input_shape)
        got = (x.shape[3], x.shape[1], x.shape[2]) if x.ndim == 4 else x.shape[1:]
        if tuple(got) != want:
            raise ShapeError(
                f"evaluation pipeline gives (C, H, W) = {tuple(got)} for sample "
                f"{self.data.ids[int(ids[0])]!r}, "
                f"the network takes {want}; end the pipeline with an operation of fixed size"
            )

    def _check_finite(self, order: Indices, loss: NDArray[Any], logits: NDArray[Any]) -> None:
        bad = ~(np.isfinite(loss) & np.isfinite(logits).all(axis=1))
        if bad.any():
            names = ", ".join(repr(self.data.ids[i]) for i in order[bad][:5])
            raise NonFiniteError(
                f"evaluation: the network's output is not finite for {int(bad.sum())} samples: {names}"
            )

    def _list_digest(self, order: Indices) -> str:
        key = order.tobytes()
        if key not in self._lists:
            self._lists[key] = list_digest(self.data, order)
        return self._lists[key]


class Stopped(Exception):  # noqa: N818 (a request, not an error)
    """`Scorer.score` was asked to stop between two batches."""


def list_digest(data: Data, order: Indices) -> str:
    """SHA-256 over id, class name and content digest of each listed sample."""
    h = hashlib.sha256()
    for i in order.tolist():
        line = f"{data.ids[i]}\0{data.classes[data.labels[i]]}\0{data.digests[i]}\n"
        h.update(line.encode("utf-8", "surrogatepass"))
    return h.hexdigest()


def _unreadable(data: Data, split: str) -> int:
    part = "train" if split == "train/clean" else split
    return len(data.unreadable) if part == "all" else data.n_unreadable(part)


# -- which samples ----------------------------------------------------------------------------


_ELSEWHERE = (
    "If the checkpoint's data have moved or changed, say where they are now: gapless eval CHECKPOINT DATA, "
    "evaluate(checkpoint, data); what is still the same is recognised"
)


def _warn_of_training_samples(saved: Checkpoint, data: Data, indices: Indices) -> None:
    """Other data that hold what the model was trained on say little about new images."""
    from .data import DataWarning

    samples = saved.manifest["samples"]
    known = {d for d, part in zip(samples["digest"], samples["split"], strict=True) if part == "train"}
    n = sum(data.digests[i] in known for i in indices.tolist())
    if n:
        text = f"{n} of these {len(indices)} samples are images that the model was trained on"
        warnings.warn(DataWarning(f"{text}: this number says little about new ones"), stacklevel=3)


def _data_of(saved: Checkpoint, data: Any) -> tuple[Data, bool]:
    """The data to score, and whether they are the checkpoint's own."""
    from . import data as sources

    if data is None:
        try:
            return sources.open(saved.recipe["data"], manifest=saved.manifest), True
        except DataError as error:
            raise DataError(f"{error}. {_ELSEWHERE}") from error
    if not isinstance(data, sources.Data):
        data = sources.open(data) if isinstance(data, Mapping) else sources.resolve(data)
    found = data.differences(saved.manifest)
    if not (found["missing"] or found["changed"] or found["relabelled"]):
        return data.with_manifest(saved.manifest), True
    shared = len(saved.manifest["samples"]["id"]) - len(found["missing"])
    if 2 * shared > len(data):
        what = ", ".join(f"{len(found[k])} {k}" for k in ("missing", "changed", "relabelled") if found[k])
        warnings.warn(
            sources.DataWarning(
                f"these are not the samples of the record ({what}): nothing is compared with it"
            ),
            stacklevel=3,
        )
    return data.mapped_to(saved.manifest["classes"]).with_channels(saved.manifest["channels"]), False


def _choose(saved: Checkpoint, data: Data, own: bool, split: str | None) -> tuple[str, Indices]:
    """Name and manifest indices of the list that is meant."""
    if split is None:
        if own:
            split = saved.state.get("record") or "val"
        else:
            split = "val" if "val" in data.splits and _names_its_splits(data) else "all"
    if split == "train/clean":
        if not own:
            raise DataError("split 'train/clean': only the checkpoint's own data have it")
        return split, np.asarray(saved.state["clean"], np.int64)
    if split == "all":
        return split, np.concatenate([np.asarray(v, np.int64) for v in data.splits.values()])
    if split not in data.splits:
        raise DataError(f"split {split!r}: this data has {', '.join(map(repr, data.splits))}, or 'all'")
    return split, np.asarray(data.splits[split], np.int64)


def _names_its_splits(data: Data) -> bool:
    """Whether the data themselves say which samples are validation (folders, list files), rather than a draw
    of ours."""
    return not isinstance(data.spec.get("split"), Sequence)


def _compare(saved: Checkpoint, now: EvalRecord, verbose: int) -> EvalRecord:
    with checkpoint_file.fitting(saved):
        stored = saved.records.get(now.split)
    if stored is None:
        return now
    recorded = EvalRecord.from_dict(stored)
    if not recorded.same_list(now):
        return now
    differs = recorded.differences(now)
    if not differs:
        return now._with(reproduced="exact")
    modes = [m for m in (recorded.kernel_set, now.kernel_set, recorded.mode, now.mode) if m in TOLERANCES]
    if modes and set(differs) <= _MAY_DIFFER and _within(recorded, now, modes):
        if verbose:
            print(f"within the tolerance of {modes[0]!r}: recorded {recorded.line()}, now {now.line()}")
        return now._with(reproduced="within", differs=differs)
    lines = "; ".join(f"{k}: recorded {_brief(a)}, now {_brief(b)}" for k, (a, b) in differs.items())
    raise EvaluationMismatch(
        f"{saved.path}: split {now.split!r} is not what the checkpoint recorded: {lines}",
        now._with(differs=differs),
        differs,
    )


def _within(recorded: EvalRecord, now: EvalRecord, modes: list[str]) -> bool:
    share, relative = (max(TOLERANCES[m][i] for m in modes) for i in (0, 1))
    room = max(1.0, share * now.n_scored)
    return abs(recorded.loss - now.loss) <= relative * max(recorded.loss, 1e-3) and all(
        abs(recorded.correct[k] - now.correct[k]) <= room for k in recorded.correct
    )


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


class _Bar:
    """A tqdm bar on standard error, where that is a terminal."""

    def __init__(self, total: int, name: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=f"evaluate {name}", unit="img", leave=False, disable=None)

    def update(self, n: int) -> None:
        self._bar.update(n)

    def close(self) -> None:
        self._bar.close()
