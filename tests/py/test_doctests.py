"""The examples in every docstring run, against the package that is installed.

All of them: ``pytest tests/py/test_doctests.py``. One by hand, verbosely: ``pytest --doctest-modules -v
python/gapless/schedule.py`` (``python -m doctest`` does not know packages).
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import warnings
from pathlib import Path

import pytest
import small

import gapless
from gapless.bench import sides

# __main__ runs the command line when imported; the peers of bench run under interpreters that have them.
PEERS = {f"gapless.bench.{name}" for name in ("torch_nets", *(f"peer_{peer}" for peer in sides.PEERS))}
LEFT_OUT = {"gapless.__main__", *PEERS}
MODULES = ["gapless", *sorted(m.name for m in pkgutil.walk_packages(gapless.__path__, "gapless."))]


@pytest.mark.parametrize("name", [m for m in MODULES if m not in LEFT_OUT])
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what an example writes by a relative path is not ours to keep
    module = importlib.import_module(name)
    with warnings.catch_warnings(), small.no_pictures():
        warnings.simplefilter("ignore", gapless.data.DataWarning)
        failed, _ = doctest.testmod(module, report=True)
    assert failed == 0, "its examples give something else; see the captured output"


def test_what_people_call_first_has_an_example() -> None:
    named = ["Recipe", "train", "evaluate", "load", "compile"]
    named += ["data.folder", "data.arrays", "data.idx", "data.cifar", "data.list_file", "data.from_callable"]
    named += ["models.create", "models.resnet18", "nn.Module", "nn.Conv2d", "optim.SGD", "augment.Resize"]
    for name in named:
        thing: object = gapless
        for part in name.split("."):
            thing = getattr(thing, part)
        assert ">>>" in (thing.__doc__ or ""), f"gapless.{name} has no example"


def test_walking_found_the_house() -> None:
    assert {"gapless.cli", "gapless.nn.module", "gapless.data.sources.idx", "gapless.training.loop"} <= set(
        MODULES
    )
