"""The loop: steps, the end of an epoch, checkpoints, and how a run ends."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _core, metrics
from .. import checkpoint as checkpoint_file
from ..errors import NonFiniteError, RecipeError, ShapeError
from ..evaluation import Scorer, Stopped
from ..schedule import ReduceOnPlateau, metric_mode
from . import early, ema, pictures
from .console import Console, banner, epoch_line, final_table
from .outputs import Folder
from .run import Run
from .state import Position, SampleTable, common_state, net_tensors

if TYPE_CHECKING:
    from ..data import Data
    from ..nn import Net
    from ..record import EvalRecord
    from .interrupt import Interrupt

__all__ = ["Trainer"]


class Trainer:
    """One run: a net, its plan, the scorer, and where it is.

    Parameters
    ----------
    recipe : dict
        Fully resolved.
    data : Data
    net : Net
    folder : Path
    console : Console
    threads : int, optional
    """

    def __init__(
        self,
        recipe: dict[str, Any],
        data: Data,
        net: Net,
        folder: Path,
        console: Console,
        threads: int | None,
    ) -> None:
        from .. import recipe as recipes

        self.recipe, self.data, self.net, self.console, self.threads = recipe, data, net, console, threads
        self.settle(folder)
        self._check_input()
        if recipe["mix"]:
            raise RecipeError("mix: mixing ops (Mixup, CutMix) are not there yet; leave mix empty")
        if recipe["test"] and not len(data.splits.get("test", ())):
            raise RecipeError("test: this data has no test split; give data.split a third fraction")
        self.pipeline = recipes.build_pipeline(recipe["train"], evaluation=False)
        self.eval_pipeline = recipes.build_pipeline(recipe["eval"], evaluation=True)
        self.optimizer = recipes.build_optimizer(recipe["optimizer"])
        self.schedule = recipes.build_schedule(recipe["schedule"])
        self.ema: tuple[float, float] | None = None
        if recipe["ema"] is not None:
            self.ema = (float(recipe["ema"]["decay"]), float(recipe["ema"]["tau"]))
        self.kind = "ema" if self.ema else "raw"
        self.manifest = data.manifest()
        self.index = np.sort(np.asarray(data.splits["train"], np.int64))
        self.batches = self._batches()
        self.total = self.batches * recipe["epochs"]
        self.schedule.check(self.batches, self.total)
        self.lists = self._lists()
        self._groups()
        loss = dict(recipe["loss"])
        self.loss = (loss.pop("name"), loss)
        self._check_last_batch()
        self.plan = self._plan(min(recipe["batch_size"], len(self.index)))
        self.scorer = Scorer(
            net.document,
            data,
            self.eval_pipeline,
            loss=self.loss,
            precision=recipe["precision"],
            topk=recipe["topk"],
            classes=data.classes,
            batch_size=max(recipe["batch_size"], 32),
            threads=threads,
        )
        constant = {"recipe": recipe, "graph": net.document, "manifest": self.manifest}
        self._constant = {word: checkpoint_file.pack(word, value) for word, value in constant.items()}
        self.position = Position()
        self.samples = SampleTable(self.index)
        self.history: list[dict[str, Any]] = []
        self.records: dict[str, EvalRecord] = {}
        self.callbacks: tuple[Any, ...] = ()
        self._watch: early.Watch | None = None  # of a run: steps that something else drives are not watched
        self._first: Any = None  # drawn when the epoch is over: a picture takes longer than a step
        self._saved_at = self._began = time.monotonic()

    def settle(self, folder: Path) -> None:
        """Take a folder to write into."""
        self.folder, self.files = folder, Folder(folder, self.console)

    def _check_input(self) -> None:
        """Before a plan is made: a stored graph that claims a huge input would cost memory and time."""
        size = self.recipe["image_size"]
        height, width = size if isinstance(size, list) else (size, size)
        if tuple(self.net.input_shape) != (self.data.channels, height, width):
            raise ShapeError(
                f"the network takes (C, H, W) = {tuple(self.net.input_shape)}, the recipe's images are "
                f"{(self.data.channels, height, width)}"
            )

    def _batches(self) -> int:
        n, size = len(self.index), self.recipe["batch_size"]
        return int(n // size if self.recipe["drop_last"] else -(-n // size))

    def _lists(self) -> dict[str, NDArray[np.int64]]:
        """What is scored at each evaluation: name → manifest indices."""
        lists = {}
        if len(self.data.splits.get("val", ())):
            lists["val"] = np.sort(np.asarray(self.data.splits["val"], np.int64))
        wanted = min(self.recipe["clean_samples"] or 0, len(self.index))
        if wanted:
            # An epoch's number that no run reaches: the choice is none of the shuffles, and never changes.
            order = _core.permutation(len(self.index), self.recipe["seed"], 0xFFFFFFFF)
            lists["train/clean"] = np.sort(self.index[order[:wanted]])
        split = self.recipe["monitor"].rpartition("/")[0]
        if split not in lists:
            raise RecipeError(
                f"monitor: {self.recipe['monitor']!r} needs split {split!r}; scored are {', '.join(lists)}"
            )
        return lists

    def _groups(self) -> None:
        """Freeze, and put norm and bias parameters into group 1 when they shall not decay."""
        if self.recipe["freeze"]:
            self.net.freeze(self.recipe["freeze"])
            if self.net.parameters_count()[0] == 0:
                raise RecipeError(
                    f"freeze: {', '.join(self.recipe['freeze'])} leaves nothing to train; leave the head out"
                )
        names = [str(n) for n in self.optimizer.config()]
        row = [float(v) for v in self.optimizer.config().values()]
        self._hyper = np.array([row], np.float64)
        self._lr_column = names.index("lr")
        if not self.recipe["decay_norm_and_bias"] and "weight_decay" in names:
            self._hyper = np.repeat(self._hyper, 2, axis=0)
            self._hyper[1, names.index("weight_decay")] = 0.0
            for e in self.net.store.entries():
                if e["norm_or_bias"]:
                    self.net.store.set_group(e["name"], 1)

    def _check_last_batch(self) -> None:
        """BatchNorm over a single value is refused when a plan is made: also where only the last batch is
        one."""
        size, n = self.recipe["batch_size"], len(self.index)
        if n > size and n % size == 1 and not self.recipe["drop_last"]:
            try:
                self._plan(1)
            except ShapeError as e:
                raise ShapeError(
                    f"{e}; the last batch of each epoch has 1 sample ({n} = {n // size} × {size} + 1): set "
                    "drop_last, or another batch_size"
                ) from None

    def _plan(self, batch: int) -> Any:
        return _core.Plan(
            self.net.graph(),
            self.net.store,
            batch=batch,
            training=True,
            precision=self.recipe["precision"],
            mean=self.pipeline.mean,
            std=self.pipeline.std,
            input_dtype="uint8",
            loss=self.loss,
            optimizer=self.recipe["optimizer"]["name"],
            recompute=self._recomputed(),
        )

    def _recomputed(self) -> list[str]:
        try:  # a run that was begun before the key existed keeps everything
            return self.net.layers(self.recipe.get("recompute", []), "recompute")
        except ValueError as e:
            raise RecipeError(str(e)) from None

    def begin(self) -> None:
        """Position 0: the average begins as the weights, and a first checkpoint holds them."""
        self._begin_average()
        self._save("last")
        self.files.event("start", samples=len(self.index), steps=self.total)

    def _begin_average(self) -> None:
        store = self.net.store
        if self.ema:
            for e in store.entries():
                store.set(e["name"], store.get(e["name"]), "ema")

    # -- running ----------------------------------------------------------------------------------

    def run(self, callbacks: tuple[Any, ...], interrupt: Interrupt, checks: bool = True) -> Run:
        """Train to the end, or to Ctrl-C; `checks`: look at the data first."""
        self.callbacks, self._interrupt = callbacks, interrupt
        self._began = self._saved_at = time.monotonic()
        self._before = self.position.seconds
        self._announce()
        if checks and self.position.step == 0:
            self._check_data()
        self._watch = early.Watch(self)
        p = self.position
        interrupt.armed = True
        try:
            while p.epoch < self.recipe["epochs"] and not p.stopped_early and not interrupt.requested:
                self._epoch()
        except Stopped:
            pass  # Ctrl-C during an evaluation: the epoch's end is still to come, and the checkpoint says so
        finally:
            self.console.end_epoch()
        if interrupt.requested and not self._complete():
            return self._stop_here()
        interrupt.armed = False
        return self._finish()

    def _complete(self) -> bool:
        return self.position.epoch >= self.recipe["epochs"] or self.position.stopped_early

    def _announce(self) -> None:
        shown = {k: v for k, v in self.data.splits.items() if len(v)}
        facts = [
            f"{self.batches} steps per epoch, {self.total} in all; evaluation of "
            + " and ".join(f"{len(v)} {k}" for k, v in self.lists.items()),
            f"about {_span(self._expected())}; {_core.get_num_threads()} threads, "
            f"{self.plan.kernel_set} kernels, "
            f"{self.recipe['precision']}; run: {self.folder}",
        ]
        lines, warnings = banner(self.data, shown, self.net.parameters_count(), facts)
        if self.ema:
            share = ema.initial_share(*self.ema, self.total)
            if share > 0.01:
                warnings.append(
                    f"ema: after all {self.total} steps {100 * share:.1f} % of the average is still "
                    f"the initial weights; "
                    "a smaller decay or tau follows faster"
                )
        for line in lines:
            self.console.say(line)
        for note in self.data.notes:
            self.files.event("note", text=note)
        for line in warnings:
            self.console.warn(line)
            self.files.event("warning", text=line)

    def _check_data(self) -> None:
        """Say in a line each what the doctor's free checks find; whatever they do, training goes on."""
        try:
            from ..doctor.at_start import findings_at_start

            found = [(f.id, f.slug, f.says) for f in findings_at_start(self.data, self.recipe)]
        except Exception as e:
            self.console.warn(f"the checks of the data failed: {type(e).__name__}: {e}; training goes on")
            return
        for ident, slug, says in found:
            self.console.warn(f"{ident} {slug}: {says}; more: gapless doctor {self.folder}")
            self.files.event("finding", check=ident, slug=slug, text=says)

    def _expected(self) -> float:
        """Seconds to go, roughly: from two evaluation passes over a blank batch; a step costs about four."""
        c, h, w = self.net.input_shape
        n = min(self.scorer.batch_size, 32)
        blank = np.zeros((n, h, w, c), np.uint8)
        took = math.inf
        for _ in range(2):
            began = time.perf_counter()
            self.scorer.plan.evaluate(blank, np.zeros(n, np.int64))
            took = min(took, time.perf_counter() - began)
        epochs = self.recipe["epochs"] - self.position.epoch
        images = (self.total - self.position.step) * self.recipe["batch_size"] * 4
        images += epochs // self.recipe["eval_every"] * sum(len(v) for v in self.lists.values())
        expected: float = took / n * images + 0.2 * epochs
        return expected

    def _epoch(self) -> None:
        p = self.position
        began, images = time.monotonic(), p.images
        self.samples.begin(p.epoch)
        if p.batch < self.batches:
            self._steps()
            if p.batch < self.batches:
                return  # interrupted
        if p.images > images:
            speed = (p.images - images) / max(time.monotonic() - began, 1e-9)
        else:  # the steps were made before the run was stopped
            speed = p.images / max(p.training_seconds, 1e-9)
        self._end_of_epoch(speed)

    def _steps(self) -> None:
        from ..data import Loader

        p, seed, size = self.position, self.recipe["seed"], self.recipe["batch_size"]
        order = self.index[_core.permutation(len(self.index), seed, p.epoch)][: self.batches * size]
        rest = order[p.batch * size :]
        losses, right = self.samples.seen(p.epoch)
        self._seen, self._right = len(losses), right
        self.console.begin_epoch(p.epoch, self.recipe["epochs"], len(order), len(order) - len(rest))
        loader = Loader(self.data, rest, self.pipeline, size, epoch=p.epoch, seed=seed, threads=self.threads)
        with loader:
            began = time.monotonic()
            for batch in loader:
                self._step(batch)
                p.training_seconds += time.monotonic() - began
                if self._interrupt.requested:
                    break
                every = self.recipe["save_every_seconds"]
                if every is not None and time.monotonic() - self._saved_at > every and p.batch < self.batches:
                    self._snapshot()
                began = time.monotonic()
        self.console.end_epoch()
        if p.batch < self.batches and not self._interrupt.requested:
            raise RuntimeError(f"the loader gave {p.batch} of {self.batches} batches of epoch {p.epoch + 1}")

    def _step(self, batch: Any) -> None:
        p = self.position
        if p.step == 0:
            self._first = batch
        lr = self._lr(p.step)
        if self._watch is not None:
            self._watch.before(p.step)
        try:
            loss, said, mean = self._update(batch, lr, p.epoch, p.step)
        except NonFiniteError as e:
            raise self._explain(e, batch) from e
        right = said == batch.y
        self.samples.note(p.epoch, batch.ids, loss, right)
        n = len(batch.ids)
        p.step, p.batch, p.images = p.step + 1, p.batch + 1, p.images + n
        self._seen, self._right = self._seen + n, self._right + int(np.count_nonzero(right))
        if self._watch is not None:
            self._watch.after(float(mean), lr)
        self.console.step(
            n, float(mean), self._right, self._seen, lr, p.images / max(p.training_seconds, 1e-9)
        )
        if self._wants("on_step"):
            info = {"epoch": p.epoch + 1, "step": p.step, "loss": float(mean), "lr": lr, "net": self.net}
            self._call("on_step", {**info, "ids": [self.data.ids[i] for i in batch.ids]})

    def _update(self, batch: Any, lr: float, epoch: int, step: int) -> tuple[Any, Any, Any]:
        """One update on a batch: losses and predictions of its samples, and its loss."""
        self._hyper[:, self._lr_column] = lr
        made: tuple[Any, Any, Any] = self.plan.step(
            batch.x,
            batch.y,
            hyper=self._hyper,
            epoch=epoch,
            step=step,
            ids=batch.ids,
            seed=self.recipe["seed"],
            ema_decay=ema.decay_at(*self.ema, step + 1) if self.ema else -1.0,
            clip_norm=self.recipe["clip_norm"] or 0.0,
        )
        return made

    def _lr(self, step: int) -> float:
        return self.schedule.value(step, self.batches, self.total, self.recipe["optimizer"]["lr"])

    def _explain(self, error: NonFiniteError, batch: Any) -> NonFiniteError:
        p = self.position
        names = ", ".join(repr(self.data.ids[i]) for i in batch.ids[:8]) + (
            " …" if len(batch.ids) > 8 else ""
        )
        self.files.event("non_finite", epoch=p.epoch + 1, step=p.step + 1, text=str(error))
        # The core counts from 0 and knows samples by their manifest index: say both as people do.
        what = re.sub(r"^epoch \d+, step \d+: |;? ?samples [\d, .]+(?=\))", "", str(error)).replace(" ()", "")
        what = re.sub(r"\bsample (\d+)", lambda m: f"sample {self.data.ids[int(m[1])]!r}", what, count=1)
        return NonFiniteError(
            f"training stopped at step {p.step + 1} (epoch {p.epoch + 1}, batch {p.batch + 1}), lr "
            f"{self._lr(p.step):g}: {what.replace('is -nan', 'is nan')}; "
            f"samples of the batch: {names}. No weight was changed by this step; the last good checkpoint is "
            f"{self.folder / 'last.safetensors'}. A smaller optimizer.lr, warm-up or clip_norm usually helps"
        )

    # -- the end of an epoch ----------------------------------------------------------------------

    def _end_of_epoch(self, speed: float) -> None:
        p, epochs = self.position, self.recipe["epochs"]
        losses, right = self.samples.seen(p.epoch)
        row: dict[str, Any] = {
            "epoch": p.epoch + 1,
            "step": p.step,
            "lr": self._lr(p.step - 1),
            "train/running/loss": metrics.mean(losses),
            "train/running/top1": right / len(losses),
            "train/running/correct": right,
            "train/running/n": len(losses),
        }
        due = (p.epoch + 1) % self.recipe["eval_every"] == 0 or p.epoch + 1 == epochs
        improved = self._evaluate(row) if due else False
        if self._watch is not None:
            self._watch.epoch(row, self.history, self.records if due else {})
        row |= {"seconds": round(self._elapsed(), 3), "images_per_second": round(speed, 1)}
        p.epoch, p.batch = p.epoch + 1, 0
        self.history.append(row)
        patience = self.recipe["early_stopping"]
        p.stopped_early = patience is not None and p.stale >= patience
        if improved:
            self._save("best")
        every = self.recipe["save_every_epochs"] or 1
        if p.epoch % every == 0 or self._complete():
            self._save("last")
            if self.recipe["keep_snapshots"]:
                self._save(f"epoch_{p.epoch:04d}")
        self.files.history(self.history)
        self.files.event("epoch", **row)
        self.console.say(epoch_line(row, epochs))
        if p.epoch == 1 and epochs > 1:
            self.console.say(f"about {_span((epochs - 1) * self._elapsed())} to go")
        self._draw_first()
        if due:
            for record in self.records.values():
                self._call("on_eval", record)
        self._call("on_epoch", dict(row))

    def _evaluate(self, row: dict[str, Any]) -> bool:
        """Score every list with the weights that the checkpoint calls plain; whether they are the best so
        far."""
        p, monitor = self.position, self.recipe["monitor"]
        self.scorer.load(self.net.state_dict(self.kind), self.kind)
        try:
            records = {
                name: self.scorer.score(indices, name, stop=lambda: self._interrupt.requested)
                for name, indices in self.lists.items()
            }
        except NonFiniteError as e:
            self.files.event("non_finite", epoch=p.epoch + 1, step=p.step, text=str(e))
            last = self.folder / "last.safetensors"
            raise NonFiniteError(
                f"epoch {p.epoch + 1}, after step {p.step}: {e}; {last} is older and stands"
            ) from e
        for name, r in records.items():
            row |= {f"{name}/{m}": r.metric(m) for m in ("loss", *(f"top{k}" for k in r.correct))}
            row |= {f"{name}/correct": r.correct[1], f"{name}/n": r.n_scored}
            low, high = r.interval
            row |= {f"{name}/low": low, f"{name}/high": high, f"{name}/majority": r.majority}
        row["weights"] = self.kind
        split, _, metric = monitor.rpartition("/")
        value = records[split].metric(metric)
        before = p.best["value"] if p.best is not None else None
        sign = -1 if metric_mode(monitor) == "min" else 1
        improved = before is None or sign * value > sign * before
        if improved:
            p.best, p.stale = {"epoch": p.epoch + 1, "value": value, "monitor": monitor}, 0
        else:
            p.stale += 1
        row["best"] = improved
        self._observe(records)
        self.records = records
        return improved

    def _draw_first(self) -> None:
        if self._first is not None:
            pictures.draw_batch(self, self._first)
            self._first = None

    def _observe(self, records: Mapping[str, EvalRecord]) -> None:
        if isinstance(self.schedule, ReduceOnPlateau):
            monitor = self.recipe["monitor"]
            split, _, metric = monitor.rpartition("/")
            self.schedule.observe(records[split].metric(metric), metric_mode(monitor))

    # -- checkpoints ------------------------------------------------------------------------------

    def _save(self, name: str) -> None:
        """Write ``<name>.safetensors``; it is verified when this returns."""
        self.position.seconds = self._elapsed()
        p = self.position
        evaluated = (
            p.batch == 0
            and bool(self.history)
            and self.history[-1]["epoch"] == p.epoch
            and "best" in self.history[-1]
        )
        tensors = net_tensors(self.net, self.recipe["optimizer"]["name"], self.kind, self.ema is not None)
        tensors |= {f"gapless/train_samples/{k}": v for k, v in self.samples.tensors().items()}
        state = {
            **common_state(self.net, p),
            "weights_kind": self.kind,
            "record": self.recipe["monitor"].rpartition("/")[0] if evaluated else None,
            "topk": list(self.recipe["topk"]),
            "clean": self.lists.get("train/clean", np.empty(0, np.int64)).tolist(),
            "schedule": self.schedule.state() if isinstance(self.schedule, ReduceOnPlateau) else None,
            "kernel_set": self.plan.kernel_set,
        }
        documents = {
            **self._constant,
            "history": self.history,
            # Records are about the very weights in the file; in the middle of an epoch there are none.
            "records": {k: r.to_dict() for k, r in self.records.items()} if evaluated else {},
            "state": state,
        }
        checkpoint_file.write(self.folder / f"{name}.safetensors", tensors, documents)
        self._saved_at = time.monotonic()

    def _snapshot(self) -> None:
        """A save in mid-epoch; when it fails (full disk), the one before it stands and training goes on."""
        try:
            self._save("last")
        except checkpoint_file.CheckpointWriteError as e:
            self._saved_at = time.monotonic()
            self.console.warn(f"{e} Training goes on; the next snapshot is tried in due time")
            self.files.event("snapshot_failed", text=str(e))

    def _elapsed(self) -> float:
        return getattr(self, "_before", self.position.seconds) + time.monotonic() - self._began

    def _stop_here(self) -> Run:
        p = self.position
        p.interrupted = True
        self._save("last")
        self.files.history(self.history)
        self.files.samples(self.samples, [self.data.ids[i] for i in self.index])
        self._draw_first()
        self.files.event("interrupted", epoch=p.epoch, batch=p.batch, step=p.step)
        last = self.folder / "last.safetensors"
        self.console.say(f"interrupted at step {p.step} of {self.total}; saved and verified: {last}")
        self.console.say(f"go on with: gapless train --resume {self.folder}")
        run = self._result()
        self._call("on_end", run)
        return run

    def _finish(self) -> Run:
        self.position.finished = True
        if self.position.stopped_early:
            best = self.position.best or {}
            self.console.say(
                f"stopped early: no better {self.recipe['monitor']} since epoch {best.get('epoch')}"
            )
        if self.recipe["test"]:
            self._read_test()
        self._save("last")
        run = self._result()
        pictures.write_results(self, run)
        self.files.event("end", epochs=run.epochs, seconds=round(run.seconds, 3))
        for line in [f"best: {run.best}", *final_table(run.records)]:
            self.console.say(line)
        self._call("on_end", run)
        return run

    def _read_test(self) -> None:
        """Score the test split once, with the best weights, and put the record into their checkpoint."""
        path = self.folder / "best.safetensors"
        saved = checkpoint_file.read(path)
        if "test" in saved.records:
            return
        self.scorer.load(saved.scored(), saved.weights_kind)
        record = self.scorer.score(np.asarray(self.data.splits["test"], np.int64), "test")
        documents = {**saved.documents, "records": {**saved.records, "test": record.to_dict()}}
        checkpoint_file.write(path, saved.tensors, documents)

    def _result(self) -> Run:
        paths = {n: p if (p := self.folder / f"{n}.safetensors").exists() else None for n in ("best", "last")}
        chosen = checkpoint_file.read(paths["best"] or paths["last"] or "").documents
        newest = {"history": self.history, "state": self.position.to_dict()}
        return Run.of(self.folder, paths["best"], paths["last"], chosen, newest)

    # -- callbacks --------------------------------------------------------------------------------

    def _wants(self, event: str) -> bool:
        return any(hasattr(c, event) for c in self.callbacks)

    def _call(self, event: str, value: Any) -> None:
        for c in self.callbacks:
            method: Callable[[Any], object] | None = getattr(c, event, None)
            if method is None:
                continue
            try:
                method(value)
            except Exception as e:
                p = self.position
                e.add_note(
                    f"raised by {event} of callback {type(c).__name__} at epoch {p.epoch}, step "
                    f"{p.step}; training stops here; "
                    f"the last checkpoint is {self.folder / 'last.safetensors'}"
                )
                self.files.event(
                    "callback_error", callback=type(c).__name__, on=event, text=f"{type(e).__name__}: {e}"
                )
                raise


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
