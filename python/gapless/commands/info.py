"""``gapless info``: what a checkpoint holds."""

from __future__ import annotations

import argparse
from typing import Any

from .words import OK, Parser, common, print_json

__all__ = ["HELP", "options", "run"]

HELP = "show what is in a checkpoint"


def options(p: Parser) -> None:
    """Its words."""
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run's folder")
    common(p, threads=False)


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    from gapless import checkpoint
    from gapless.evaluation import find_checkpoint

    saved = checkpoint.read(find_checkpoint(arguments.checkpoint))
    with checkpoint.fitting(saved):
        facts = facts_of(saved)
        lines = lines_of(facts, arguments.quiet)
    if arguments.json:
        print_json(facts)
    else:
        print("\n".join(lines))
    return OK


def facts_of(saved: Any) -> dict[str, Any]:
    """What a checkpoint holds, as plain data."""
    documents = saved.documents
    recipe, manifest = documents.get("recipe") or {}, documents.get("manifest") or {}
    weights = saved.weights() if "state" in documents else None
    state = documents.get("state") or {}
    held = {kind: bool(state) and bool(saved.weights(kind)) for kind in ("raw", "ema")}
    parts = {**held, "optimizer": sorted(saved.slots())}
    samples = manifest.get("samples") or {}
    splits: dict[str, int] = {}
    for name in samples.get("split", ()):
        splits[name or "none"] = splits.get(name or "none", 0) + 1
    numbers = ("epoch", "batch", "step", "finished", "interrupted", "seconds")
    return {
        "path": str(saved.path),
        "digest": saved.digest,
        "weights": state.get("weights_kind"),
        "tensors": len(weights or {}),
        "values": int(sum(array.size for array in (weights or {}).values())),
        "model": {k: v for k, v in (recipe.get("model") or {}).items() if k != "graph"}
        or "a graph of one's own",
        "input": (documents.get("graph") or {}).get("input"),
        "classes": list(manifest.get("classes", ())),
        "splits": splits,
        "parts": parts,
        "documents": sorted(documents),
        "position": {key: state[key] for key in numbers if key in state},
        "records": documents.get("records") or {},
        "epochs": len(documents.get("history") or ()),
        "recipe": recipe,
    }


def lines_of(facts: dict[str, Any], quiet: bool) -> list[str]:
    """The facts as people read them."""
    model = facts["model"]
    if isinstance(model, dict):
        rest = ", ".join(f"{key} {value}" for key, value in model.items() if key != "name")
        model = f"{model.get('name')}" + (f" ({rest})" if rest else "")
    shape = "×".join(str(side) for side in facts["input"] or ())
    names = facts["classes"]
    shown = ", ".join(names[:8]) + (f", … {len(names) - 8} more" if len(names) > 8 else "")
    lines = [
        f"{facts['path']}",
        f"  model      {model}, input {shape}",
        f"  weights    {facts['weights']}: {facts['tensors']} tensors, {facts['values']:,} values",
        f"  classes    {len(names)}: {shown}",
        f"  samples    {', '.join(f'{name} {n:,}' for name, n in facts['splits'].items())}",
    ]
    for name, record in facts["records"].items():
        low, high = record["interval"]
        counts = f"({record['correct']['top1']}/{record['n_scored']})"
        rate = f"top-1 {record['top1']:.4f} [{low:.4f}, {high:.4f}]  {counts}"
        lines.append(f"  {name:<11}{' ' * (len(name) > 10)}{rate}, loss {record['loss']:.6g}")
    parts = facts["parts"]
    held = [name for name in ("raw", "ema") if parts[name]]
    held += [f"optimizer ({', '.join(parts['optimizer'])})"] if parts["optimizer"] else []
    missing = [name for name in ("raw", "ema") if not parts[name]]
    missing += [] if parts["optimizer"] else ["optimizer"]
    absent = f"; not: {', '.join(missing)}" if missing else ""
    lines.append(f"  holds      {', '.join([*held, *facts['documents']])}{absent}")
    if facts["position"]:
        said = {**facts["position"], "seconds": round(facts["position"].get("seconds", 0), 1)}
        lines.append(f"  position   {', '.join(f'{k} {v}' for k, v in said.items())}")
    lines.append(f"  digest     {facts['digest']}")
    if not quiet and facts["recipe"]:
        from gapless import _yaml

        recipe = {
            k: v for k, v in facts["recipe"].items() if v is not None and not (k == "model" and "graph" in v)
        }
        lines += ["  recipe", *(f"    {line}" for line in _yaml.dump(recipe).splitlines())]
    return lines
