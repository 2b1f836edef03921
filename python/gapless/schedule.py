"""Learning-rate schedules: pure float64 functions of the step, so that resuming needs nothing to restore.

Every schedule answers one question, ``value(t, steps_per_epoch, total_steps, base_lr)``: the learning rate of
the update with index ``t`` (0 for the first). The definitions are torch.optim.lr_scheduler's with one
scheduler step per optimizer step; what torch users count in epochs has a name ending in ``_epochs``, or
``by_epoch=True``.

Warm-up (every schedule but OneCycle has it) is linear and lies *outside* the decay: with W warm-up steps of
T, ``t < W`` gives ``start + (lr - start) * (t + 1) / W``, and the decay then runs over the remaining ``T -
W`` steps. ``inside=True`` is timm's form: ``start + (lr - start) * t / W`` while the decay already counts
from step 0.

ReduceOnPlateau is the one schedule with state; Lambda is stored as the list of its values.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gapless.errors import RecipeError

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Lambda",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "ReduceOnPlateau",
    "Schedule",
    "Step",
    "from_config",
    "metric_mode",
    "names",
]

_TIMM_WARMUP_START = 1e-5


def metric_mode(metric: str) -> str:
    """Return the direction in which a metric improves: ``"min"`` for losses, ``"max"`` for rates.

    Examples
    --------
    >>> metric_mode("val/top1"), metric_mode("val/loss")
    ('max', 'min')
    """
    return "min" if metric.rsplit("/", 1)[-1].endswith("loss") else "max"


def _number(owner: str, name: str, value: Any, low: float, high: float, *, low_open: bool = False) -> float:
    """Check one real number against its range and return it as float."""
    if isinstance(value, bool) or (not isinstance(value, (int, float)) and not hasattr(value, "__float__")):
        raise RecipeError(f"{owner}: {name} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < low or number > high or (low_open and number == low):
        left = "(" if low_open else "["
        right = "inf)" if high == math.inf else f"{high:g}]"
        raise RecipeError(f"{owner}: {name} must be in {left}{low:g}, {right}, got {value!r}")
    return number


def _whole(owner: str, name: str, value: Any, low: int) -> int:
    """Check one whole number against its lower bound and return it as int."""
    if isinstance(value, bool) or (not isinstance(value, int) and not hasattr(value, "__index__")):
        raise RecipeError(f"{owner}: {name} must be a whole number, got {value!r}")
    number = int(value.__index__())
    if number < low:
        raise RecipeError(f"{owner}: {name} must be at least {low}, got {number}")
    return number


def _one_of(owner: str, values: Mapping[str, Any], *, required: bool) -> None:
    """Check that at most one (exactly one, if required) of the named values is given."""
    given = [name for name, value in values.items() if value is not None]
    if len(given) > 1:
        raise RecipeError(f"{owner}: {' and '.join(given)} say the same thing twice: give one of them")
    if required and not given:
        raise RecipeError(f"{owner}: needs {' or '.join(values)}")


@dataclass(frozen=True, repr=False)
class Schedule:
    """What all schedules share: warm-up, config, and the split of a run into warm-up and decay.

    Parameters
    ----------
    warmup_epochs : float, optional
        Length of the warm-up in epochs; may be a fraction.
    warmup_steps : int, optional
        Length of the warm-up in optimizer steps (give this or `warmup_epochs`).
    warmup_start : float, optional
        Learning rate that the ramp starts from: 0 by default, 1e-5 (timm's) with `inside`.
    inside : bool
        timm's form: the warm-up replaces the first steps of the decay.
    """

    warmup_epochs: float | None = field(default=None, kw_only=True)
    warmup_steps: int | None = field(default=None, kw_only=True)
    warmup_start: float | None = field(default=None, kw_only=True)
    inside: bool = field(default=False, kw_only=True)

    stateful: ClassVar[bool] = False
    _warms_up: ClassVar[bool] = True

    def __post_init__(self) -> None:
        owner = type(self).__name__
        self._check_bools()
        _one_of(
            owner, {"warmup_epochs": self.warmup_epochs, "warmup_steps": self.warmup_steps}, required=False
        )
        if self.warmup_epochs is not None:
            self._set(warmup_epochs=_number(owner, "warmup_epochs", self.warmup_epochs, 0, math.inf))
        if self.warmup_steps is not None:
            self._set(warmup_steps=_whole(owner, "warmup_steps", self.warmup_steps, 0))
            if self._by_epoch:
                raise RecipeError(
                    f"{owner}: by_epoch=True counts in epochs: give warmup_epochs, not warmup_steps"
                )
        if self.warmup_start is None:
            self._set(warmup_start=_TIMM_WARMUP_START if self.inside else 0.0)
        self._set(warmup_start=_number(owner, "warmup_start", self.warmup_start, 0, math.inf))

    def _check_bools(self) -> None:
        for name in ("inside", "by_epoch"):
            if not isinstance(getattr(self, name, False), bool):
                raise RecipeError(
                    f"{type(self).__name__}: {name} must be true or false, got {getattr(self, name)!r}"
                )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def _by_epoch(self) -> bool:
        return bool(getattr(self, "by_epoch", False))

    @property
    def name(self) -> str:
        """The name that a recipe calls this schedule by."""
        return type(self).__name__

    def warmup_length(self, steps_per_epoch: int) -> int:
        """Return the number of warm-up steps."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return 0 if self.warmup_epochs is None else round(self.warmup_epochs * steps_per_epoch)

    def check(self, steps_per_epoch: int, total_steps: int) -> None:
        """Raise RecipeError unless this schedule fits a run of that length."""
        steps_per_epoch = _whole(self.name, "steps_per_epoch", steps_per_epoch, 1)
        total_steps = _whole(self.name, "total_steps", total_steps, 1)
        length = self.warmup_length(steps_per_epoch)
        if length > total_steps:
            raise RecipeError(
                f"{self.name}: the warm-up takes {length} steps, but the whole run has {total_steps}: "
                "shorten warmup_epochs (or warmup_steps), or train longer"
            )
        self._check_length(total_steps if self.inside else total_steps - length, steps_per_epoch)

    def _check_length(self, n: int, steps_per_epoch: int) -> None:
        """Raise RecipeError unless the decay fits n steps; most fit any."""

    def value(self, t: int, steps_per_epoch: int, total_steps: int, base_lr: float) -> float:
        """Return the learning rate of update `t`.

        Parameters
        ----------
        t : int
            Index of the optimizer step, 0 for the first.
        steps_per_epoch, total_steps : int
            Lengths of an epoch and of the whole run, in optimizer steps.
        base_lr : float
            The optimizer's own learning rate.

        Examples
        --------
        >>> warm = Cosine(warmup_epochs=2)
        >>> [round(warm.value(t, 5, 50, 0.1), 5) for t in (0, 1, 9, 10, 11, 49)]
        [0.01, 0.02, 0.1, 0.1, 0.09985, 0.00015]
        """
        if not 0 <= t < total_steps:
            raise RecipeError(f"{self.name}: step {t} is outside the run of {total_steps} steps")
        if self._by_epoch:
            t, total_steps, steps_per_epoch = t // steps_per_epoch, -(-total_steps // steps_per_epoch), 1
        length = self.warmup_length(steps_per_epoch)
        if length > total_steps:
            self.check(steps_per_epoch, total_steps)
        if self.inside:
            if t < length:
                return self._ramp(t, length, base_lr)
            return self._decay(t, total_steps, steps_per_epoch, base_lr)
        if t < length:
            return self._ramp(t + 1, length, base_lr)
        return self._decay(t - length, total_steps - length, steps_per_epoch, base_lr)

    def _ramp(self, i: int, length: int, base_lr: float) -> float:
        start = self.warmup_start or 0.0
        return start + (base_lr - start) * (i / length)

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        """Return the learning rate at index i of the n steps that the decay has."""
        raise NotImplementedError

    def series(self, steps_per_epoch: int, total_steps: int, base_lr: float) -> list[float]:
        """Return the learning rate of every step of a run, for plots and tests."""
        return [self.value(t, steps_per_epoch, total_steps, base_lr) for t in range(total_steps)]

    def config(self) -> dict[str, Any]:
        """Return all parameters as plain data: ``from_config({"name": s.name, **s.config()}) == s``."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Schedule:
        """Make a schedule from ``{"name": …, parameters}``."""
        return from_config(config)

    def __repr__(self) -> str:
        shown = []
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.init and value != f.default and not (f.name == "warmup_start" and self._default_start()):
                shown.append(f"{f.name}={list(value) if isinstance(value, tuple) else value!r}")
        return f"{self.name}({', '.join(shown)})"

    def _default_start(self) -> bool:
        return self.warmup_start == (_TIMM_WARMUP_START if self.inside else 0.0)


@dataclass(frozen=True, repr=False)
class Constant(Schedule):
    """The same learning rate at every step (after the warm-up, if there is one).

    Examples
    --------
    >>> Constant().value(3, 5, 50, 0.1)
    0.1
    """

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        return float(base_lr)


@dataclass(frozen=True, repr=False)
class Step(Schedule):
    """Multiply by `gamma` after every `step_size` steps. Agrees with torch's StepLR.

    Parameters
    ----------
    step_size : int, optional
        Steps between two drops; or `step_size_epochs`.
    gamma : float
        Factor of each drop.

    Examples
    --------
    >>> [Step(step_size_epochs=2, gamma=0.5).value(t, 10, 60, 1.0) for t in (19, 20, 40)]
    [1.0, 0.5, 0.25]
    """

    step_size: int | None = None
    gamma: float = 0.1
    step_size_epochs: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(
            "Step", {"step_size": self.step_size, "step_size_epochs": self.step_size_epochs}, required=True
        )
        if self.step_size is not None:
            self._set(step_size=_whole("Step", "step_size", self.step_size, 1))
        else:
            epochs = _number("Step", "step_size_epochs", self.step_size_epochs, 0, math.inf, low_open=True)
            self._set(step_size_epochs=epochs)
        self._set(gamma=_number("Step", "gamma", self.gamma, 0, math.inf))

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        if self.step_size is not None:
            size = self.step_size
        else:
            size = max(1, round((self.step_size_epochs or 0) * steps_per_epoch))
        return float(base_lr * self.gamma ** (i // size))


@dataclass(frozen=True, repr=False)
class MultiStep(Schedule):
    """Multiply by `gamma` at each milestone. Agrees with torch's MultiStepLR.

    Parameters
    ----------
    milestones : sequence of int, optional
        Steps at which the rate drops, counted from the end of the warm-up (from step 0 with `inside`);
        or `milestones_epochs`, in epochs.
    gamma : float
        Factor of each drop.

    Examples
    --------
    >>> [MultiStep(milestones_epochs=[2, 3]).value(t, 10, 60, 1.0) for t in (19, 20, 29)]
    [1.0, 0.1, 0.1]
    """

    milestones: Sequence[int] | None = None
    gamma: float = 0.1
    milestones_epochs: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {"milestones": self.milestones, "milestones_epochs": self.milestones_epochs}
        _one_of("MultiStep", given, required=True)
        name, raw = next((k, v) for k, v in given.items() if v is not None)
        if isinstance(raw, (str, bytes)) or (not isinstance(raw, Sequence) and not hasattr(raw, "__iter__")):
            raise RecipeError(f"MultiStep: {name} must be a list of numbers, got {raw!r}")
        if name == "milestones":
            checked: tuple[float, ...] = tuple(
                _whole("MultiStep", f"milestones[{i}]", v, 0) for i, v in enumerate(raw)
            )
        else:
            checked = tuple(_number("MultiStep", f"{name}[{i}]", v, 0, math.inf) for i, v in enumerate(raw))
        if list(checked) != sorted(checked):
            raise RecipeError(f"MultiStep: {name} must rise, got {list(checked)}")
        self._set(**{name: checked}, gamma=_number("MultiStep", "gamma", self.gamma, 0, math.inf))

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        if self.milestones is not None:
            steps = list(self.milestones)
        else:
            steps = [round(m * steps_per_epoch) for m in self.milestones_epochs or ()]
        return float(base_lr * self.gamma ** bisect_right(steps, i))


@dataclass(frozen=True, repr=False)
class Exponential(Schedule):
    """Multiply by `gamma` at every step, or once per epoch with `by_epoch`. Agrees with torch's
    ExponentialLR.

    Parameters
    ----------
    gamma : float
        Factor per step (per epoch with `by_epoch`).
    by_epoch : bool
        Move once per epoch, as a torch loop that calls ``scheduler.step()`` after each epoch.

    Examples
    --------
    >>> [Exponential(0.5, by_epoch=True).value(t, 10, 60, 1.0) for t in (9, 10, 25)]
    [1.0, 0.5, 0.25]
    """

    gamma: float = 0.95
    by_epoch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(gamma=_number("Exponential", "gamma", self.gamma, 0, math.inf, low_open=True))

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        return float(base_lr * self.gamma**i)


@dataclass(frozen=True, repr=False)
class _Span(Schedule):
    """What Polynomial and Linear share: the number of steps that the movement takes, by default all."""

    total_iters: int | None = field(default=None, kw_only=True)
    total_epochs: float | None = field(default=None, kw_only=True)
    by_epoch: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(
            self.name, {"total_iters": self.total_iters, "total_epochs": self.total_epochs}, required=False
        )
        if self.total_iters is not None:
            self._set(total_iters=_whole(self.name, "total_iters", self.total_iters, 1))
            if self.by_epoch:
                raise RecipeError(
                    f"{self.name}: by_epoch=True counts in epochs: give total_epochs, not total_iters"
                )
        if self.total_epochs is not None:
            self._set(
                total_epochs=_number(self.name, "total_epochs", self.total_epochs, 0, math.inf, low_open=True)
            )

    def _done(self, i: int, n: int, steps_per_epoch: int) -> float:
        """Return how much of the movement is done at index i, from 0 to 1."""
        if self.total_iters is not None:
            span = self.total_iters
        elif self.total_epochs is not None:
            span = max(1, round(self.total_epochs * steps_per_epoch))
        else:
            span = n
        return min(i, span) / span


@dataclass(frozen=True, repr=False)
class Polynomial(_Span):
    """Decay as ``(1 - t/T) ** power`` from the base rate to `final`. With final=0: torch's PolynomialLR.

    Parameters
    ----------
    power : float
        1 is a straight line.
    final : float
        Learning rate at the end (torch: 0).
    total_iters, total_epochs : optional
        Length of the decay; the whole run by default.
    by_epoch : bool
        Move once per epoch instead of at every step.

    Examples
    --------
    >>> [Polynomial(power=2).value(t, 5, 10, 1.0) for t in (0, 5)]
    [1.0, 0.25]
    """

    power: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(power=_number("Polynomial", "power", self.power, 0, math.inf, low_open=True))
        self._set(final=_number("Polynomial", "final", self.final, 0, math.inf))

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        left = 1.0 - self._done(i, n, steps_per_epoch)
        return float(self.final + (base_lr - self.final) * left**self.power)


@dataclass(frozen=True, repr=False)
class Linear(_Span):
    """A straight line between two factors of the base rate. Agrees with torch's LinearLR, but for the
    defaults: here the line falls from 1 to 0 over the whole run (YOLOv5: ``end_factor=lrf``); torch's rises
    from 1/3 to 1 in five steps.

    Parameters
    ----------
    start_factor, end_factor : float
        Factors of the base rate at both ends.
    total_iters, total_epochs : optional
        Length of the line; the whole run by default.
    by_epoch : bool
        Move once per epoch instead of at every step.

    Examples
    --------
    >>> [Linear(end_factor=0.5).value(t, 5, 10, 1.0) for t in (0, 5)]
    [1.0, 0.75]
    """

    start_factor: float = 1.0
    end_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            start_factor=_number("Linear", "start_factor", self.start_factor, 0, math.inf, low_open=True)
        )
        self._set(end_factor=_number("Linear", "end_factor", self.end_factor, 0, math.inf))

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        done = self._done(i, n, steps_per_epoch)
        return float(base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done))


@dataclass(frozen=True, repr=False)
class Cosine(Schedule):
    """Half a cosine from the base rate to `final`. Agrees with torch's CosineAnnealingLR (T_max = the
    decay's steps).

    With warm-up it agrees with Keras' and Paddle's but for the shift by one step that keeps the first update
    from being 0; with ``inside=True`` it agrees with timm's.

    Parameters
    ----------
    final : float
        Learning rate at the end (torch: eta_min).
    by_epoch : bool
        Move once per epoch instead of at every step.

    Examples
    --------
    >>> [round(Cosine().value(t, 5, 50, 0.1), 6) for t in (0, 25, 49)]
    [0.1, 0.05, 9.9e-05]
    """

    final: float = 0.0
    by_epoch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(final=_number("Cosine", "final", self.final, 0, math.inf))

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        return float(self.final + (base_lr - self.final) * 0.5 * (1.0 + math.cos(math.pi * i / n)))


@dataclass(frozen=True, repr=False)
class OneCycle(Schedule):
    """Up to the base rate and down again in one cycle. Agrees with torch's OneCycleLR (max_lr = the base
    rate), learning rate only; fastai's shape is ``pct_start=0.25, final_div_factor=1e5 / div_factor``.

    It is its own warm-up, and takes none of the warm-up parameters.

    Parameters
    ----------
    pct_start : float
        Share of the run that the rise takes.
    div_factor : float
        The first rate is base / div_factor.
    final_div_factor : float
        The last rate is base / div_factor / final_div_factor.
    anneal : {"cos", "linear"}
        Shape of both parts.

    Examples
    --------
    >>> [round(OneCycle().value(t, 10, 100, 1.0), 4) for t in (0, 29, 99)]
    [0.04, 1.0, 0.0]
    """

    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    anneal: str = "cos"

    _warms_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.warmup_epochs or self.warmup_steps or self.inside:
            raise RecipeError("OneCycle: has a rise of its own (pct_start), and takes no warm-up")
        super().__post_init__()
        self._set(pct_start=_number("OneCycle", "pct_start", self.pct_start, 0, 1))
        self._set(div_factor=_number("OneCycle", "div_factor", self.div_factor, 0, math.inf, low_open=True))
        final = _number("OneCycle", "final_div_factor", self.final_div_factor, 0, math.inf, low_open=True)
        self._set(final_div_factor=final)
        if self.anneal not in ("cos", "linear"):
            raise RecipeError(f"OneCycle: anneal must be 'cos' or 'linear', got {self.anneal!r}")

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        first, last = base_lr / self.div_factor, base_lr / self.div_factor / self.final_div_factor
        peak = self.pct_start * n - 1.0
        if i <= peak:
            return self._between(first, base_lr, i / peak if peak > 0 else 1.0)
        end = n - 1.0
        return self._between(base_lr, last, (i - peak) / (end - peak))

    def _between(self, a: float, b: float, done: float) -> float:
        if self.anneal == "linear":
            return (b - a) * done + a
        return b + (a - b) / 2.0 * (math.cos(math.pi * done) + 1.0)


@dataclass(frozen=True, repr=False)
class ReduceOnPlateau(Schedule):
    """Multiply by `factor` when the monitored metric has not improved for `patience` evaluations.

    The one schedule with state, which goes into the checkpoint. Agrees with torch's ReduceLROnPlateau, but
    that `mode` follows the metric's own direction by default (losses fall, rates rise), and that evaluations
    are counted.

    Parameters
    ----------
    factor : float
        Factor of each reduction.
    patience : int
        Evaluations without improvement that are let pass.
    threshold, threshold_mode : float, {"rel", "abs"}
        How much better counts as better.
    cooldown : int
        Evaluations after a reduction during which none is counted as bad.
    min_lr, eps : float
        Lower bound, and the smallest change worth making.
    mode : {"auto", "min", "max"}
        Direction of the metric.

    Examples
    --------
    >>> plateau = ReduceOnPlateau(patience=1, mode="max")
    >>> [plateau.observe(v) for v in (0.5, 0.5, 0.5)]
    [False, False, True]
    >>> round(plateau.value(40, 10, 100, 0.1), 12)
    0.01
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    eps: float = 1e-8
    mode: str = "auto"

    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "ReduceOnPlateau"
        self._set(factor=_number(owner, "factor", self.factor, 0, 1, low_open=True))
        if self.factor == 1.0:
            raise RecipeError("ReduceOnPlateau: factor must be below 1, got 1.0")
        self._set(patience=_whole(owner, "patience", self.patience, 0))
        self._set(cooldown=_whole(owner, "cooldown", self.cooldown, 0))
        for name in ("threshold", "min_lr", "eps"):
            self._set(**{name: _number(owner, name, getattr(self, name), 0, math.inf)})
        for name, choices in (("threshold_mode", ("rel", "abs")), ("mode", ("auto", "min", "max"))):
            if getattr(self, name) not in choices:
                raise RecipeError(
                    f"{owner}: {name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        self._set(_state={"best": None, "bad": 0, "cooldown": 0, "reductions": 0})

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        lr = float(base_lr)
        for _ in range(self._states["reductions"]):
            reduced = max(lr * self.factor, self.min_lr)
            if lr - reduced <= self.eps:
                break
            lr = reduced
        return lr

    @property
    def _states(self) -> dict[str, Any]:
        state: dict[str, Any] = self.__dict__["_state"]
        return state

    def observe(self, metric: float, mode: str | None = None) -> bool:
        """Take one evaluation's metric; return whether the learning rate was reduced.

        Parameters
        ----------
        metric : float
            The monitored number.
        mode : {"min", "max"}, optional
            The metric's own direction (see `metric_mode`); used when the schedule's mode is "auto".
        """
        direction = self.mode if self.mode != "auto" else mode or "max"
        if direction not in ("min", "max"):
            raise RecipeError(f"ReduceOnPlateau: mode must be 'min' or 'max', got {mode!r}")
        state = self._states
        if self._better(float(metric), state["best"], direction):
            state["best"], state["bad"] = float(metric), 0
        else:
            state["bad"] += 1
        if state["cooldown"] > 0:
            state["cooldown"] -= 1
            state["bad"] = 0
        if state["bad"] <= self.patience:
            return False
        state["reductions"] += 1
        state["cooldown"], state["bad"] = self.cooldown, 0
        return True

    def _better(self, now: float, best: float | None, direction: str) -> bool:
        if best is None:  # torch starts from ±inf, which any number but NaN beats
            return now < math.inf if direction == "min" else now > -math.inf
        if self.threshold_mode == "rel":
            return (
                now < best * (1.0 - self.threshold)
                if direction == "min"
                else now > best * (1.0 + self.threshold)
            )
        return now < best - self.threshold if direction == "min" else now > best + self.threshold

    def state(self) -> dict[str, Any]:
        """Return the state as plain data, for the checkpoint."""
        return dict(self._states)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        fresh = {"best": None, "bad": 0, "cooldown": 0, "reductions": 0}
        if set(state) != set(fresh):
            raise RecipeError(
                f"ReduceOnPlateau: state must hold {', '.join(fresh)}, got {', '.join(sorted(state))}"
            )
        best = state["best"]
        counts = {
            k: _whole("ReduceOnPlateau", f"state {k}", state[k], 0) for k in ("bad", "cooldown", "reductions")
        }
        self._set(_state={"best": None if best is None else float(best), **counts})


@dataclass(frozen=True, repr=False)
class Lambda(Schedule):
    """Any function of the step, as a factor of the base rate. Agrees with torch's LambdaLR.

    A function cannot be stored; `tabulate` (called when the run begins) replaces it by the list of its
    values, one per step of the decay (per epoch with `by_epoch`), and that list is what recipe and
    checkpoint hold.

    Parameters
    ----------
    values : callable or sequence of float
        ``factor(i)``, or the factors themselves.
    by_epoch : bool
        Move once per epoch: ``factor(epoch)``.

    Examples
    --------
    >>> Lambda(lambda t: 0.5 ** t).tabulate(1, 3)
    Lambda(values=[1.0, 0.5, 0.25])
    """

    values: Callable[[int], float] | Sequence[float] = ()
    by_epoch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        raw = self.values
        if callable(raw):
            return
        if isinstance(raw, (str, bytes)) or not hasattr(raw, "__len__"):
            raise RecipeError(
                f"Lambda: values must be a function of the step or a list of factors, got {raw!r}"
            )
        factors = tuple(_number("Lambda", f"values[{i}]", v, 0, math.inf) for i, v in enumerate(raw))
        if not factors:
            raise RecipeError("Lambda: values must hold at least one factor")
        self._set(values=factors)

    def tabulate(self, steps_per_epoch: int, total_steps: int) -> Lambda:
        """Return the same schedule with the function replaced by its values for a run of that length."""
        if not callable(self.values):
            return self
        length = self.warmup_length(1 if self.by_epoch else steps_per_epoch)
        n = -(-total_steps // steps_per_epoch) if self.by_epoch else total_steps
        n = max(1, n if self.inside else n - length)
        return dataclasses.replace(self, values=[self._call(i) for i in range(n)])

    def _call(self, i: int) -> float:
        assert callable(self.values)
        factor = self.values(i)
        return _number("Lambda", f"the function's value at step {i}", factor, 0, math.inf)

    def _check_length(self, n: int, steps_per_epoch: int) -> None:
        have = math.inf if callable(self.values) else len(self.values)
        need = -(-n // steps_per_epoch) if self.by_epoch else n
        if have < need:
            raise RecipeError(f"Lambda: has {have} values, the run needs {need}: give more, or train shorter")

    def _decay(self, i: int, n: int, steps_per_epoch: int, base_lr: float) -> float:
        if callable(self.values):
            return float(base_lr * self._call(i))
        if i >= len(self.values):
            raise RecipeError(
                f"Lambda: has {len(self.values)} values, the run needs more: give more, or train shorter"
            )
        return float(base_lr * self.values[i])

    def config(self) -> dict[str, Any]:
        """Return all parameters as plain data; a function must have been tabulated first."""
        if callable(self.values):
            raise RecipeError(
                "Lambda: a function cannot be stored: call .tabulate(steps_per_epoch, total_steps) first"
            )
        return super().config()


_CLASSES: dict[str, type[Schedule]] = {
    cls.__name__: cls
    for cls in (
        Constant, Step, MultiStep, Exponential, Polynomial, Linear, Cosine, OneCycle, ReduceOnPlateau, Lambda,
    )
}  # fmt: skip


def names() -> tuple[str, ...]:
    """Return the names of all schedules."""
    return tuple(_CLASSES)


def parameters(name: str) -> tuple[str, ...]:
    """Return the names of a schedule's parameters, its own first."""
    cls = _CLASSES[name]
    keys = [f.name for f in dataclasses.fields(cls) if f.init]
    shared = {f.name for f in dataclasses.fields(Schedule)}
    own, common = [k for k in keys if k not in shared], [k for k in keys if k in shared]
    return tuple(own + (common if cls._warms_up else []))


def from_config(config: Mapping[str, Any] | str | Schedule) -> Schedule:
    """Make a schedule from ``{"name": "Cosine", "warmup_epochs": 5}``, a bare name, or a schedule (returned
    as it is).

    Examples
    --------
    >>> from_config({"name": "Cosine", "warmup_epochs": 5})
    Cosine(warmup_epochs=5.0)
    >>> from_config({"name": "Cosin"})
    Traceback (most recent call last):
    gapless.errors.RecipeError: schedule.name: unknown 'Cosin'; did you mean 'Cosine'?
    """
    if isinstance(config, Schedule):
        return config
    if isinstance(config, str):
        config = {"name": config}
    values = dict(config)
    name = values.pop("name", None)
    if name is None:
        raise RecipeError(f"schedule: needs a name, one of {', '.join(_CLASSES)}")
    if name not in _CLASSES:
        near = difflib.get_close_matches(str(name), _CLASSES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_CLASSES)}"
        raise RecipeError(f"schedule.name: unknown {name!r}; {hint}")
    known = parameters(name)
    every = known + tuple(f.name for f in dataclasses.fields(Schedule))
    for key in values:
        if key not in every:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"{name} takes {', '.join(known)}"
            raise RecipeError(f"schedule.{key}: {name} has no such parameter; {hint}")
    try:
        return _CLASSES[name](**values)
    except RecipeError as error:
        raise RecipeError(f"schedule: {error}") from None
    except TypeError as error:
        raise RecipeError(f"schedule: {name}: {error}") from None
