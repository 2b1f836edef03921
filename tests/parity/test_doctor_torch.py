"""The doctor from outside: a PyTorch model trained elsewhere, with one fault each, to be found first.

    python -m pytest tests/parity/test_doctor_torch.py -s        # prints the table

Images are made up so that every fault bites: the class is told by the colour of a disc and by the pitch of
the stripes behind it, some of which a resize without antialias folds into others.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")

import gapless as gl  # noqa: E402

CLASSES = ("amber", "brick", "cobalt", "dusk", "elm", "fog")
SIDE, FED = 48, 24
N_TRAIN, N_VAL = 1200, 1000
#: hue of the disc (RGB), and pixels per stripe
LOOKS = {
    "amber": ((210, 150, 40), 0.0),
    "brick": ((190, 60, 50), 0.0),
    "cobalt": ((50, 60, 190), 0.0),
    "dusk": ((120, 110, 120), 2.0),
    "elm": ((120, 110, 120), 5.0),
    "fog": ((120, 110, 120), 0.0),
}
DROPOUT = 0.5


def painted(rng: np.random.Generator, name: str) -> np.ndarray:
    colour, pitch = LOOKS[name]
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    image = np.full((SIDE, SIDE, 3), 128.0) + rng.normal(0, 18, 3)
    if pitch:
        angle = rng.normal(0, 0.05)
        wave = np.sign(
            np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle) + rng.random()) / pitch + 0.1)
        )
        image += 70 * wave[..., None]
    cx, cy, r = rng.uniform(14, 34, 2).tolist() + [rng.uniform(7, 12)]
    inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
    image[inside] = np.array(colour) + rng.normal(0, 22, 3)
    return np.clip(image + rng.normal(0, 22, image.shape), 0, 255).astype(np.uint8)


def prepare(
    path: str,
    *,
    bgr: bool = False,
    scale: float = 255.0,
    mean: tuple[float, ...] = (0.485, 0.456, 0.406),
    std: tuple[float, ...] = (0.229, 0.224, 0.225),
    kernel: Any = None,
) -> np.ndarray:
    """As many evaluation scripts do it: Pillow, a resize, ImageNet's numbers."""
    with Image.open(path) as im:
        small = im.convert("RGB").resize((FED, FED), Image.Resampling.BILINEAR if kernel is None else kernel)
    a = np.asarray(small, np.float32)
    if bgr:
        a = a[..., ::-1]
    x = (a / scale - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1), np.float32)


def network() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(DROPOUT),
        nn.Linear(24, len(CLASSES)),
    )


@dataclass
class Trained:
    """The model and its data; `right` is the accuracy with nothing wrong."""

    root: Path
    model: Any
    logged: float
    right: float
    seconds: float
    rows: list[tuple[str, ...]] = field(default_factory=list)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("painted")
    rng = np.random.default_rng(5)
    began = time.perf_counter()
    for split, n in (("train", N_TRAIN), ("val", N_VAL)):
        for k in range(n):
            name = CLASSES[k % len(CLASSES)]
            (root / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(painted(rng, name)).save(root / split / name / f"{k:04d}.png")
    torch.manual_seed(0)
    torch.set_num_threads(1)  # two models' threads would wait for each other
    x, y = loaded(root / "train")
    model = network()
    logged = fit(model, x, y)
    model.eval()
    right = accuracy(model, *loaded(root / "val"))
    made = Trained(root, model, logged, right, time.perf_counter() - began)
    yield made
    print(f"\ntrained in {made.seconds:.0f} s: logged {logged:.3f}, validation {right:.3f}")
    head = ("fault", "door", "first finding", "points", "interval", "truth", "inside", "seconds")
    for row in (head, *made.rows):
        print("  ".join(str(c).ljust(w) for c, w in zip(row, (26, 8, 22, 7, 16, 7, 6, 7), strict=True)))


def files(folder: Path) -> list[tuple[str, int]]:
    return [(str(p), k) for k, name in enumerate(CLASSES) for p in sorted((folder / name).iterdir())]


def loaded(folder: Path, **how: Any) -> tuple[Any, Any]:
    pairs = files(folder)
    x = torch.from_numpy(np.stack([prepare(p, **how) for p, _ in pairs]))
    return x, torch.tensor([k for _, k in pairs])


def fit(model: Any, x: Any, y: Any, epochs: int = 10) -> float:
    """Trains; the running accuracy of the last epoch, in training mode, as training loops print it."""
    steps = epochs * -(-len(x) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    hits = 0
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        model.train()
        for part in order.split(32):
            logits = model(x[part])
            loss = torch.nn.functional.cross_entropy(logits, y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if epoch == epochs - 1:
                hits += int((logits.argmax(1) == y[part]).sum())
    return hits / len(x)


def accuracy(model: Any, x: Any, y: Any) -> float:
    with torch.no_grad():
        return float((torch.cat([model(p) for p in x.split(64)]).argmax(1) == y).float().mean())


def again(t: Trained) -> Any:
    """The trained model, in an object of its own."""
    model = network()
    model.load_state_dict(t.model.state_dict())
    return model.eval()


def not_loaded(t: Trained) -> Any:
    torch.manual_seed(1)
    return network().eval()


def in_training_mode(t: Trained) -> Any:
    return again(t).train()


def softmax_at_the_end(t: Trained) -> Any:
    return torch.nn.Sequential(again(t), torch.nn.Softmax(dim=1)).eval()


@dataclass(frozen=True)
class Fault:
    id: str
    model: Callable[[Trained], Any] = again
    how: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES


ORDER = ("brick", "elm", "amber", "fog", "dusk", "cobalt")
NONE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FAULTS = {
    "weights not loaded": Fault("W1", not_loaded),
    "BGR": Fault("P1", how={"bgr": True}),
    "no /255": Fault("P1", how={"scale": 1.0}),
    "other mean/std": Fault("P1", how=NONE),
    "other resize kernel": Fault("P1", how={"kernel": 0}),
    "class order permuted": Fault("C1", classes=ORDER),
    "left in training mode": Fault("D1", in_training_mode),
    "softmax twice": Fault("C3", softmax_at_the_end),
}


def truth(name: str, fault: Fault, t: Trained) -> float | None:
    """What comes back without the fault; None where it takes no accuracy."""
    if fault.id == "C3":
        return None
    x, y = loaded(t.root / "val", **fault.how)
    y = torch.tensor([fault.classes.index(CLASSES[k]) for k in y.tolist()])
    wrong = accuracy(fault.model(t), x, y)
    return (t.logged if fault.id == "W1" else t.right) - wrong


def noted(t: Trained, name: str, door: str, d: gl.Diagnosis, real: float | None) -> None:
    f = d.findings[0] if d.findings else None
    cells = (
        ("none", "", "", "", "")
        if f is None
        else (
            f"{f.id} {f.slug}",
            f"{100 * f.points:.1f}",
            f"[{100 * f.low:.1f}, {100 * f.high:.1f}]",
            "" if real is None else f"{100 * real:.1f}",
            "" if real is None else "yes" if f.low <= real <= f.high else "NO",
        )
    )
    t.rows.append((name, door, *cells, f"{d.seconds:.1f}"))


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_the_first_finding(name: str, trained: Trained) -> None:
    fault = FAULTS[name]
    d = gl.diagnose(
        model=fault.model(trained),
        preprocess=lambda path: prepare(path, **fault.how),
        train=files_named(trained.root / "train"),
        val=files_named(trained.root / "val"),
        classes=fault.classes,
        logged=trained.logged,
        verbose=0,
    )
    real = truth(name, fault, trained)
    noted(trained, name, "model", d, real)
    assert d.findings, "\n".join(f"{c.id} {c.result.outcome}: {c.result.says}" for c in d.checks)
    assert d.findings[0].id == fault.id, [(f.id, f.says) for f in d.findings]
    if real is not None:
        assert d.findings[0].low <= real <= d.findings[0].high


def files_named(folder: Path) -> list[tuple[str, str]]:
    return [(p, CLASSES[k]) for p, k in files(folder)]


def test_nothing_is_found_where_nothing_is_wrong(trained: Trained) -> None:
    d = gl.diagnose(
        model=again(trained),
        preprocess=prepare,
        train=files_named(trained.root / "train"),
        val=files_named(trained.root / "val"),
        classes=CLASSES,
        logged=trained.logged,
        verbose=0,
    )
    noted(trained, "nothing", "model", d, 0.0)
    assert not d.findings, [(f.id, f.says) for f in d.findings]


@pytest.mark.parametrize("name", ["weights not loaded", "class order permuted", "softmax twice"])
def test_outputs_alone_tell(name: str, trained: Trained, tmp_path: Path) -> None:
    fault = FAULTS[name]
    real = truth(name, fault, trained)
    for split in ("val", "train"):
        x, _ = loaded(trained.root / split, **fault.how)
        with torch.no_grad():
            scores = fault.model(trained)(x)
            if name == "softmax twice":  # the script that writes the table takes softmax, as always
                scores = scores.softmax(1)
        kind = "prob" if name == "softmax twice" else "logit"
        with open(tmp_path / f"{split}.csv", "w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            writer.writerow(["path", "target", *(f"{kind}_{k}" for k in range(len(CLASSES)))])
            for (path, k), row in zip(files(trained.root / split), scores.tolist(), strict=True):
                writer.writerow([path, fault.classes.index(CLASSES[k]), *(f"{v:.6f}" for v in row)])
    d = gl.diagnose(
        outputs=tmp_path / "val.csv",
        train_outputs=tmp_path / "train.csv",
        classes=fault.classes,
        logged=trained.logged,
        verbose=0,
    )
    noted(trained, name, "outputs", d, real)
    assert d.findings, "\n".join(f"{c.id} {c.result.outcome}: {c.result.says}" for c in d.checks)
    assert d.findings[0].id == fault.id, [(f.id, f.says) for f in d.findings]
