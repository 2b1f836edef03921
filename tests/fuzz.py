"""Damaged, random and hostile input to every reader: an error that says why or a result, within a second.

    python tests/fuzz.py                     # 10^6 inputs to each reader
    python tests/fuzz.py -n 20000 idx list   # fewer, to the readers whose names begin so
    python tests/fuzz.py --seed 7 --jobs 4

The suite runs a slice (tests/py/test_fuzz.py). An input that does any other thing than be read or be refused
is written to ``fuzz_<reader>.bin`` in the working directory and named, with the traceback.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gzip
import hashlib
import io
import json
import multiprocessing
import pickle
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gapless.errors import GaplessError

SECONDS = 1.0  # of processor time, that one input may take
STUCK = 120.0  # of any time, after which the process says where it is and ends
MEMORY = 6 << 30  # bytes of address space for the command

Rng = np.random.Generator
Spoil = Callable[[Rng, bytes], bytes]


@dataclass
class Reader:
    """What is fuzzed: `read` takes whole inputs; `spoil` makes them from the `examples`."""

    examples: list[bytes]
    read: Callable[[bytes], object]
    spoil: Spoil = field(default_factory=lambda: spoiled)
    refuses: type[Exception] | tuple[type[Exception], ...] = GaplessError
    sealed: bool = False  # every input but the examples themselves must be refused


@dataclass
class Outcome:
    """What became of the inputs."""

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: list[tuple[bytes, str]] = field(default_factory=list)


# -- making inputs --------------------------------------------------------------------------------

_PIECES: list[bytes] = [
    b"\0",
    b"\n",
    b'"',
    b",",
    b" ",
    b"\xff\xfe",
    "é".encode(),
    b"-1",
    b"\r",
    b"[",
    b"{",
    b":",
]
_PIECES += [b"&a *a", b"9" * 30, b"null", b"nan", b"!!python/object:os.system", b"<<: ", b"\t", b"#"]


def spoiled(rng: Rng, data: bytes) -> bytes:
    """Bytes changed, cut, doubled, filled with what a parser may stumble over."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, len(out) + 1))
        kind = int(rng.integers(7))
        if kind == 0 and out:
            out[min(at, len(out) - 1)] = int(rng.integers(256))
        elif kind == 1:
            del out[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            out[at:at] = out[: int(rng.integers(1, 20))]
        elif kind == 3:
            out[at : at + 4] = bytes([255]) * 4
        elif kind == 4:
            out[at:at] = _PIECES[int(rng.integers(len(_PIECES)))]
        elif kind == 5 and out:
            out[min(at, len(out) - 1)] ^= 1 << int(rng.integers(8))
        else:
            del out[at:]
    return bytes(out)


_ODD: list[Any] = [
    None,
    -1,
    0,
    1,
    "x",
    "",
    [],
    {},
    1.5,
    -0.0,
    True,
    False,
    [1],
    {"a": 1},
    1 << 70,
    -(1 << 40),
    1e308,
]
_ODD += [[[]], "../../etc/passwd", "__class__", [None], {"name": "SGD"}, list(range(10))]


def bent(rng: Rng, value: Any) -> Any:
    """Plain data with some leaves, keys or items changed."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.integers(1, 3))):
        places = list(_places(value))
        if not places:
            return _ODD[int(rng.integers(len(_ODD)))]
        # One of the upper places as often as one of the many below them.
        holder, key = places[int(rng.integers(len(places) if rng.integers(2) else min(len(places), 12)))]
        kind = int(rng.integers(6))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[str(key) + "x"] = holder.pop(key)
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            changed = holder[key] * int(rng.integers(-3, 100)) + int(rng.integers(-2, 3))
            holder[key] = changed if abs(changed) < 1e308 else 1e308  # JSON has no infinity
        else:
            holder[key] = copy.deepcopy(_ODD[int(rng.integers(len(_ODD)))])
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where something stands in plain data: upper places first."""
    level = [value]
    while level:
        below = []
        for holder in level:
            keys: Any = list(holder) if isinstance(holder, dict) else range(len(holder))
            for key in keys:
                yield holder, key
                if isinstance(holder[key], dict | list):
                    below.append(holder[key])
        level = below


# -- the readers ----------------------------------------------------------------------------------


def _idx(folder: Path, zipped: bool = False) -> Reader:
    from gapless.data.sources.idx import read_idx

    body = bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 3]) + bytes(60)
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 3, 4])
    file = folder / "x"
    examples = [gzip.compress(b) if zipped else b for b in (body, labels)]
    return Reader(examples, lambda data: (file.write_bytes(data), read_idx(file)))


def _list(folder: Path, name: str, text: str) -> Reader:
    from gapless.data.sources import list_file

    file = folder / name
    return Reader([text.encode()], lambda data: (file.write_bytes(data), list_file.listing(file)))


def _picture(folder: Path) -> Reader:
    from PIL import Image

    from gapless.data.decode import DecodeError, decode

    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(size=(12, 16, 3)).cumsum(0).cumsum(1) * 6 + 128, 0, 255).astype(np.uint8)
    examples = []
    for kind, options in [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {}),
    ]:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind, **options)
        examples.append(out.getvalue())
    return Reader(examples, lambda data: decode(data, max_pixels=1 << 22), refuses=DecodeError)


def _exif(folder: Path) -> Reader:
    from gapless.data.decode import exif_orientation

    entries = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x0f\x01\x02\0\x03\0\0\0\x26\0\0\0"
    block = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)

    def read(data: bytes) -> None:
        if exif_orientation(data) not in range(1, 9):
            raise AssertionError("an orientation that there is not")

    return Reader([block], read)


def _stored(folder: Path) -> Reader:
    from gapless.data.sources import _stored as stored

    thing = {
        "data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "labels": [1, 2, 3],
        "names": ["a", b"b"],
        "x": 1.5,
    }
    examples = [pickle.dumps(thing, protocol=p) for p in (0, 2, 4, 5)]
    return Reader(examples, lambda data: stored.read_stored(data, "x"))


def _manifest(folder: Path) -> Reader:
    import gapless.data as gd

    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 3), dtype=np.uint8)
    data = gd.arrays(pixels, [0, 1] * 3)

    def spoil(rng: Rng, whole: bytes) -> bytes:
        return json.dumps(bent(rng, json.loads(whole))).encode()

    whole = json.dumps(data.manifest()).encode()
    return Reader([whole], lambda text: data.with_manifest(json.loads(text)), spoil)


_RECIPES = [
    """data:      {folder: flowers/, split: [0.8, 0.1, 0.1]}
model:     {name: resnet18, num_classes: 3}
train:     [RandomResizedCrop: {size: 224, scale: [0.2, 1.0]}, RandomHorizontalFlip]
eval:      [Resize: 256, CenterCrop: 224]
loss:      {name: CrossEntropy, label_smoothing: 0.1}
optimizer: {name: SGD, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 4e-5}
schedule:  {name: Cosine, warmup_epochs: 5}
epochs:    90
batch_size: 128
seed:      0
""",
    "data: digits\nmodel: lenet\noptimizer: AdamW\nema: 0.99\nfreeze: [conv1]\ntopk: [1, 5]\n"
    "schedule: {name: MultiStep, milestones: [30, 60], gamma: 0.1}\nclip_norm: 1.0\n",
]


def _recipe(folder: Path) -> Reader:
    from gapless.recipe import Recipe

    file = folder / "r.yaml"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        recipe = Recipe.from_yaml(file)
        if Recipe.from_yaml(recipe.to_yaml()) != recipe:
            raise AssertionError("a recipe that does not read back as itself")

    return Reader([text.encode() for text in _RECIPES], read)


def _recipe_values(folder: Path) -> Reader:
    from gapless import _yaml
    from gapless.recipe import Recipe

    examples = [json.dumps(_yaml.load(text)).encode() for text in _RECIPES]

    def spoil(rng: Rng, text: bytes) -> bytes:
        return json.dumps(bent(rng, json.loads(text))).encode()

    return Reader(examples, lambda text: Recipe.from_dict(json.loads(text)).to_yaml(), spoil)


def _override(folder: Path) -> Reader:
    from gapless import _yaml
    from gapless.recipe import Recipe

    base = Recipe.from_dict(_yaml.load(_RECIPES[0]))
    examples = [b"optimizer.lr=0.05", b"train.0.size=96", b"train.RandomResizedCrop.scale=[0.5, 1]"]
    examples += [b"schedule.name=Step", b"data.split=[0.5,0.5]", b"freeze=[conv1]", b"image_size=9"]

    def read(data: bytes) -> None:
        key, _, value = data.decode("utf-8", "surrogateescape").partition("=")
        base.override({key: value})

    return Reader(examples, read)


def _checkpoint_bytes(folder: Path) -> bytes:
    from gapless import checkpoint

    rng = np.random.default_rng(0)
    file = folder / "example.safetensors"
    tensors = {
        "conv1.weight": rng.normal(size=(2, 1, 3, 3)).astype(np.float32),
        "optim/momentum_buffer/conv1.weight": np.zeros((2, 1, 3, 3), np.float32),
        "gapless/train_samples/right": np.arange(6, dtype=np.int8).reshape(2, 3),
        "fc.scalar": np.float32(3).reshape(()),
    }
    documents = {
        "recipe": {"epochs": 3, "model": {"name": "lenet"}},
        "graph": {"format": 1, "nodes": []},
        "manifest": {"format": 1, "classes": ["a", "猫"], "samples": {"id": ["x/\udce9.png"]}},
        "history": [{"epoch": 0, "val/top1": 0.5}],
        "records": {},
        "state": {"weights_kind": "raw", "step": 7},
    }
    checkpoint.write(file, tensors, documents)
    return file.read_bytes()


def _checkpoint(folder: Path, sealed: bool = False) -> Reader:
    """`sealed`: the closing digest is made to fit again, so that what lies behind it is reached; without, any
    change at all must be refused."""
    from gapless import checkpoint
    from gapless._layout import canonical

    file = folder / "c.safetensors"

    def spoil(rng: Rng, data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header, body = data[8 : 8 + length], data[8 + length : -32]
        kind = int(rng.integers(4))
        if kind == 0:
            header = spoiled(rng, header)
        elif kind == 1:
            header = json.dumps(bent(rng, json.loads(header))).encode()
        elif kind == 2:
            rows = json.loads(header)
            meta = bent(rng, json.loads(rows["__metadata__"]["gapless"]))
            rows["__metadata__"]["gapless"] = canonical(meta)
            header = json.dumps(rows).encode()
        else:
            body = spoiled(rng, body)
        stated = len(header) if rng.integers(8) else length
        whole = stated.to_bytes(8, "little") + header + body
        return whole + hashlib.sha256(whole).digest()

    return Reader(
        [_checkpoint_bytes(folder)],
        lambda data: (file.write_bytes(data), checkpoint.read(file)),
        spoil if sealed else spoiled,
        sealed=not sealed,
    )


def _documents(folder: Path) -> Reader:
    """A sound file whose documents somebody else wrote: everything that opens a checkpoint, on it."""
    import gapless as gl
    from gapless import checkpoint, nn
    from gapless.commands import info
    from gapless.training import outputs

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.relu, self.pool, self.flat = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.fc(self.flat(self.pool(self.relu(self.bn1(self.conv1(x))))))

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 6, 6), dtype=np.uint8)
    (folder / "images").mkdir()
    from PIL import Image

    for i, image in enumerate(pixels):
        place = folder / "images" / "ab"[i % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    recipe = gl.Recipe(data=folder / "images", model=Net(), epochs=1, batch_size=6)
    drawn = outputs.Folder.picture
    outputs.Folder.picture = lambda *_: None  # type: ignore[method-assign]
    try:
        run = gl.train(recipe, out=folder / "run", verbose=0)
    finally:
        outputs.Folder.picture = drawn  # type: ignore[method-assign]
    assert run.last is not None
    sound = checkpoint.read(run.last)
    sound.documents["recipe"]["epochs"] = 2  # half way: there is something to resume
    sound.documents["state"]["finished"] = False
    file = run.last

    def spoil(rng: Rng, text: bytes) -> bytes:
        documents = json.loads(text)
        word = sorted(documents)[int(rng.integers(len(documents)))]
        documents[word] = bent(rng, documents[word])
        return json.dumps(documents).encode()

    def read(text: bytes) -> None:
        checkpoint.write(file, sound.tensors, json.loads(text))
        refused: GaplessError | None = None
        for use in (_predict, gl.evaluate, _info, _run, _resume):
            try:
                use(file)
            except GaplessError as error:
                refused = error
        if refused is not None:
            raise refused

    def _predict(path: Path) -> None:
        gl.load(path).predict(pixels[0])

    def _info(path: Path) -> None:
        saved = checkpoint.read(path)
        with checkpoint.fitting(saved):
            info.lines_of(info.facts_of(saved), quiet=False)

    def _run(path: Path) -> None:
        repr(gl.Run.open(path.parent)._repr_html_())

    def _resume(path: Path) -> None:
        from gapless.training import begin
        from gapless.training.console import Console

        begin.resume(path, None, Console(0), None)

    return Reader([json.dumps(sound.documents).encode()], read, spoil)


def _graph(folder: Path) -> Reader:
    """The file of ``model: {graph: FILE}``: a network that somebody else described."""
    import gapless as gl
    from gapless import recipe

    file = folder / "graph.json"
    nets = [
        gl.models.lenet(num_classes=3, in_channels=1).net((1, 12, 12), seed=None),
        gl.models.resnet8(num_classes=2, in_channels=1).net((1, 8, 8), seed=None),
        gl.models.mobilenet_v3_small(num_classes=2, width=0.25).net((3, 16, 16), seed=None),
    ]

    def spoil(rng: Rng, text: bytes) -> bytes:
        return json.dumps(bent(rng, json.loads(text))).encode()

    def read(text: bytes) -> None:
        file.write_bytes(text)
        recipe.build_net({"graph": str(file)}, (1, 8, 8), None)

    return Reader([json.dumps(net.document).encode() for net in nets], read, spoil)


def _yolo_yaml(folder: Path) -> Reader:
    from gapless.doctor import yolo

    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"")
    file = folder / "data.yaml"
    texts = [
        "path: .\ntrain: images\nval: images\nnames:\n  0: cat\n  1: dog\n",
        "train: [images, images]\nval:\nnc: 2\nnames: ['cat', 'dog']\n",
    ]
    return Reader(
        [t.encode() for t in texts], lambda data: (file.write_bytes(data), yolo.read(file).to_dict())
    )


def _yolo_label(folder: Path) -> Reader:
    """A line that is wrong is counted, not refused; what is kept must be boxes of the image."""
    from PIL import Image

    from gapless.doctor import yolo

    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.new("L", (8, 6)).save(folder / "images" / "a.png")
    (folder / "data.yaml").write_text("train: images\nnames: [a, b, c]\n")
    file = folder / "labels" / "a.txt"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        labels = yolo.read(folder / "data.yaml")
        split = labels.splits["train"]
        if not ((split.boxes >= 0) & (split.boxes <= 1)).all() or not set(split.classes) <= {0, 1, 2}:
            raise AssertionError("a box that is none was kept")
        if len(split.boxes) > split.lines:
            raise AssertionError("more boxes than lines")
        labels.text()

    texts = [
        b"0 0.5 0.5 0.25 0.5\n2 0.1 0.2 0.1 0.1\n",
        b"1 0.1 0.1 0.5 0.1 0.5 0.6 0.2 0.7\n1 1e-1 .5 1 1\n",
    ]
    return Reader(texts, read)


def _detector_losses(folder: Path) -> Reader:
    from gapless.doctor import detector_losses

    rows = [f"{k},{s},{p},0.04,0.01{k},0.02,{3 + k},100" for k in range(2) for s in ("train", "val")
            for p in ("train", "val")]  # fmt: skip
    whole = "\n".join([",".join(detector_losses.COLUMNS), *rows]) + "\n"
    file = folder / "t.csv"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        detector_losses.factors(detector_losses.read(file))

    return Reader([whole.encode()], read)


_VAL = 'path,target,p_cat,p_dog\na.png,cat,0.75,0.25\n"b, c.png",dog,0.125,0.875\nd.png,1,5e-1,.5\n'


def _outputs(folder: Path, name: str, texts: list[str]) -> Reader:
    from gapless.doctor import read_outputs

    file = folder / name
    return Reader([t.encode() for t in texts], lambda data: (file.write_bytes(data), read_outputs(file)))


def _outputs_npz(folder: Path) -> Reader:
    """Whole files, and files whose arrays are spoiled before they are packed, so that what lies behind the
    checksums is reached."""
    from gapless.doctor import read_outputs

    file = folder / "o.npz"
    arrays = {"id": np.array(["a", "b", "c"]), "target": np.array([0, 1, 1])}
    arrays["logits"] = np.arange(6, dtype=np.float32).reshape(3, 2)

    def packed(spoil: Callable[[bytes], bytes] | None = None) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in arrays.items():
                one = io.BytesIO()
                np.save(one, value)
                archive.writestr(f"{name}.npy", spoil(one.getvalue()) if spoil else one.getvalue())
        return out.getvalue()

    def spoil(rng: Rng, data: bytes) -> bytes:
        if rng.integers(3) == 0:
            return spoiled(rng, data)
        return packed(lambda one: spoiled(rng, one) if rng.integers(2) else one)

    return Reader([packed()], lambda data: (file.write_bytes(data), read_outputs(file)), spoil)


READERS: dict[str, Callable[[Path], Reader]] = {
    "idx": _idx,
    "idx.gz": lambda folder: _idx(folder, zipped=True),
    "list.txt": lambda f: _list(f, "l.txt", "a/b c.png cat\nx.jpg dog\n# note\n中.png 猫\n"),
    "list.numbers": lambda f: _list(f, "n.txt", "a.png 0\nb.png 1\nc.png 2\n"),
    "list.csv": lambda f: _list(
        f, "t.csv", 'path,label,split,who\n"a, b.png",cat,train,x\nc.png,dog,val,y\n'
    ),
    "list.tsv": lambda f: _list(f, "t.tsv", "image\tclass\na.png\tcat\nb.png\tdog\n"),
    "outputs.csv": lambda f: _outputs(f, "o.csv", [_VAL, "id;label;pred\nx;0;1.0\ny;1;1\n"]),
    "outputs.txt": lambda f: _outputs(
        f, "o.txt", ["# id y logit_0 logit_1\nx 0 -1.5 2e0\ny 1 3 4\n", "x\t0\t1\ny\t1\t1\n"]
    ),
    "outputs.npz": _outputs_npz,
    "picture": _picture,
    "exif": _exif,
    "stored": _stored,
    "manifest": _manifest,
    "recipe": _recipe,
    "recipe.values": _recipe_values,
    "override": _override,
    "checkpoint": _checkpoint,
    "checkpoint.sealed": lambda folder: _checkpoint(folder, sealed=True),
    "graph": _graph,
    "yolo.yaml": _yolo_yaml,
    "yolo.label": _yolo_label,
    "detector.losses": _detector_losses,
    "documents": _documents,
}


# -- running --------------------------------------------------------------------------------------


def fuzz(name: str, n: int, seed: int, folder: Path, most_failures: int = 1) -> Outcome:
    """Give `n` inputs to a reader; stops at `most_failures`."""
    done = Outcome()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = READERS[name](folder)
        for k in range(n):
            rng = np.random.default_rng([seed, zlib.crc32(name.encode()), k])
            data = reader.spoil(rng, reader.examples[k % len(reader.examples)])
            began = time.process_time()
            try:
                reader.read(data)
                done.read += 1
                if reader.sealed and data not in reader.examples:
                    done.failures.append((data, "a file with other bytes was read"))
            except reader.refuses as error:
                done.refused += 1
                if not str(error).strip():
                    done.failures.append((data, "an error that says nothing"))
            except Exception:
                done.failures.append((data, traceback.format_exc()))
            took = time.process_time() - began
            done.slowest = max(done.slowest, took)
            if took > SECONDS:
                done.failures.append((data, f"took {took:.1f} s of processor time"))
            if k % 256 == 0:
                faulthandler.dump_traceback_later(STUCK, exit=True)
            if len(done.failures) >= most_failures:
                break
    faulthandler.cancel_dump_traceback_later()
    return done


def _part(given: tuple[str, int, int]) -> tuple[str, int, Outcome]:
    name, n, seed = given
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        return name, seed, fuzz(name, n, seed, Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readers", nargs="*", help=f"beginnings of names; all: {', '.join(READERS)}")
    parser.add_argument("-n", type=int, default=1_000_000, help="inputs to each reader (default: a million)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args()
    names = [r for r in READERS if not given.readers or r.startswith(tuple(given.readers))]
    if not names:
        parser.error(f"no reader is called so; there are {', '.join(READERS)}")
    per_job = -(-given.n // given.jobs)
    parts = [(name, per_job, given.seed * given.jobs + job) for name in names for job in range(given.jobs)]
    bad = 0
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for name, seed, done in pool.imap(_part, parts):
            print(f"{name:<18} {done.read:>9,} read {done.refused:>9,} refused, slowest {done.slowest:.3f} s")
            for data, said in done.failures:
                bad += 1
                file = Path(f"fuzz_{name}_{seed}.bin")
                file.write_bytes(data)
                print(f"  FAILED: {file}\n{said}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
