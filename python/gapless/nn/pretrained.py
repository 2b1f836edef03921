"""Start from the weights of a file, with a new head when the classes differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gapless.errors import CheckpointError
from gapless.nn.net import LoadReport, Net, match_state

__all__ = ["load_pretrained"]


def load_pretrained(net: Net, file: str | Path, num_classes: int | None = None) -> LoadReport:
    """Takes the weights of a .safetensors file (ours or another's); the head may be for other classes.

    Parameters
    ----------
    net : Net
    file : path
    num_classes : int, optional
        Classes of the new head; must be the network's own.

    Returns
    -------
    LoadReport
        `reshaped` lists the head's weights when the file has other classes: they keep their initial values.

    Raises
    ------
    CheckpointError
        Anything that is neither taken nor the head: names missing on either side, other shapes, a file
        that is damaged.
    """
    if num_classes is not None and num_classes != net.num_classes:
        raise ValueError(f"num_classes is {num_classes}, but the network has {net.num_classes} outputs")
    state = read_weights(file)
    shapes = {e["name"]: e["shape"] for e in net.entries()}
    try:
        report, values = match_state(shapes, state, strict=True, reshaped=head_weights(net.document, shapes))
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}{_stem_hint(shapes, state)}") from None
    for name in report.matched:
        if not np.isfinite(values[name]).all():
            raise CheckpointError(f"{file}: {name} has values that are not finite; nothing was loaded")
    # Half a head (a bias that happens to fit beside a weight that does not) would be worse than a new one.
    if report.reshaped:
        layers = {name.rsplit(".", 1)[0] for name in report.reshaped}
        split = [name for name in report.matched if name.rsplit(".", 1)[0] in layers]
        report = report._replace(
            matched=[n for n in report.matched if n not in split],
            reshaped=[n for n in shapes if n in split or n in report.reshaped],
        )
    for name in report.matched:
        net.store.set(name, values[name])
    return report


def _stem_hint(shapes: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """The two stems of a ResNet have one name and two shapes: say which of them the file has."""
    ours = tuple(shapes.get("conv1.weight", ()))[2:]
    theirs = tuple(np.shape(state.get("conv1.weight", ())))[2:]
    stem = {(3, 3): "cifar", (7, 7): "imagenet"}
    if ours == theirs or ours not in stem or theirs not in stem:
        return ""
    return f"; the file has the {stem[theirs]} stem: model.stem={stem[theirs]}"


def head_weights(document: Mapping[str, Any], shapes: Mapping[str, Any]) -> list[str]:
    """Weights of the layer that gives the first output: the last one with weights on the way to it."""
    value = document["outputs"][0]
    while value > 0:
        node = document["nodes"][value - 1]
        own = [name for name in shapes if name.rsplit(".", 1)[0] == node["name"]]
        if own or len(node["in"]) != 1:
            return own
        value = node["in"][0]
    return []


def read_weights(file: str | Path) -> dict[str, Any]:
    """Plain names of a .safetensors file. A gapless checkpoint is verified, its other parts left out."""
    path = Path(file)
    if not path.exists():
        raise CheckpointError(f"pretrained: there is no file {path}")
    if path.suffix in (".pth", ".pt", ".pkl", ".bin"):
        raise CheckpointError(
            f"{path}: pickled weights can run code and are never opened; convert them where they come from: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as f:
            names = list(f.keys())
            ours = any(name.startswith("gapless/") for name in names)
            if not ours:
                return {name: f.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: not a .safetensors file that can be read: {error}") from None
    return _read_checkpoint(path)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    from gapless import checkpoint

    return checkpoint.read(path).weights() or {}
