"""What ``gapless bench`` does with its arguments: case after case, each shown as soon as it is measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from gapless.bench import SECONDS, bench, machine, per_layer, per_op, rows, warnings_of
from gapless.bench.cases import Case, expand
from gapless.bench.sides import configurations
from gapless.bench.worker import need_net
from gapless.errors import GaplessError

__all__ = ["run"]

OK, FAILED = 0, 2
DEFAULT_CASE = "resnet18@32"
LAYER_SECONDS = 0.3


def run(arguments: argparse.Namespace, print_json: Callable[[Any], None]) -> int:
    """Measure what was asked for; gives the exit code.

    One case is a document, several are a list of them. Where there are several, one that fails is said and
    the others go on.
    """
    import gapless

    threads = arguments.threads or gapless.get_num_threads()
    words = arguments.case or [DEFAULT_CASE]
    cases = expand(words, arguments.batch)
    _check(arguments, threads)
    if len(cases) == 1:
        need_net(cases[0])
    facts = machine.machine_facts(threads)
    show = _Show(arguments, facts, threads)
    found: list[dict[str, Any]] = []
    failed = False
    for case in cases:
        try:
            result = _measure(arguments, case, threads)
        except (GaplessError, ValueError, MemoryError) as error:
            if len(cases) == 1:
                raise
            failed = True
            result = {"work": arguments.work, "case": case.name, "batch": case.batch, "error": str(error)}
        found.append({**result, "machine": facts})
        show.result(result)
    _warn_of_drift(facts, threads)
    if arguments.json:
        print_json(found[0] if len(cases) == 1 and words[0] not in ("all", "others") else found)
    return FAILED if failed else OK


def _check(arguments: argparse.Namespace, threads: int) -> None:
    """Options that say nothing about what is measured are errors, not ignored."""
    peer = ("peer", "peer_python", "peer_configuration", "scaling")
    given = [f"--{name.replace('_', '-')}" for name in peer if getattr(arguments, name)]
    if arguments.profile and arguments.work == "kernels":
        raise ValueError("bench: --profile is of train or eval; kernels are timed one by one already")
    if given and (arguments.profile or arguments.work == "kernels"):
        what = "--profile" if arguments.profile else "kernels"
        raise ValueError(f"bench: {what} measures gapless alone; leave out {', '.join(given)}")
    if arguments.peer is None and len([g for g in given if g != "--scaling"]):
        raise ValueError("bench: --peer-python and --peer-configuration belong to --peer NAME")
    if arguments.peer is not None:
        configurations(arguments.peer, arguments.work, arguments.peer_configuration)
    if arguments.scaling and threads < 2:
        raise ValueError("bench: --scaling compares threads with one; give --threads 2 or more")
    if arguments.seconds is not None and not 0 < arguments.seconds < 3600:
        raise ValueError(f"bench: --seconds must be in (0, 3600), got {arguments.seconds}")


def _measure(arguments: argparse.Namespace, case: Case, threads: int) -> dict[str, Any]:
    seconds = arguments.seconds
    if arguments.work == "kernels":
        told = None if arguments.quiet or not sys.stderr.isatty() else _progress
        found = per_layer.kernels(case, threads, seconds or LAYER_SECONDS, told)
        if told:
            told("")
        return found
    if arguments.profile:
        return per_op.profile(arguments.work, case, threads, seconds or SECONDS)
    return bench(
        arguments.work,
        case,
        threads=threads,
        peer=arguments.peer,
        peer_python=arguments.peer_python,
        peer_configuration=arguments.peer_configuration,
        scaling=arguments.scaling,
        rounds=arguments.rounds,
        seconds=seconds or SECONDS,
    )


def _progress(text: str) -> None:
    print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)


class _Show:
    """Prints the machine, a heading, and a row per case as it comes; with --json only warnings."""

    def __init__(self, arguments: argparse.Namespace, facts: dict[str, Any], threads: int) -> None:
        self._quiet = arguments.json
        self._whole = arguments.work == "kernels" or arguments.profile
        self._peer, self._scaling = arguments.peer is not None, arguments.scaling
        self._columns = rows.columns(self._peer, self._scaling)
        if not self._quiet:
            print(machine.machine_line(facts), flush=True)
        if not self._quiet and not self._whole:
            print(f"{arguments.work}, {threads} threads{self._against(arguments)}")
            print(rows.head(self._columns), flush=True)

    def _against(self, arguments: argparse.Namespace) -> str:
        return f", beside {arguments.peer}; ratio: times as fast" if arguments.peer else ""

    def result(self, result: dict[str, Any]) -> None:
        for text in warnings_of(result):
            print(f"WARNING: {text}", file=sys.stderr)
        if "error" in result:
            print(f"{result['case']}: {result['error']}", file=sys.stderr, flush=True)
        elif self._quiet:
            return
        elif self._whole:
            tables = per_layer.kernels_text if "layers" in result else per_op.profile_text
            print(f"\n{tables(result)}", flush=True)
        else:
            print(rows.line(self._columns, rows.cells(result, self._peer, self._scaling)), flush=True)


def _warn_of_drift(facts: dict[str, Any], threads: int) -> None:
    """The processor's speed before and after: where it moved, absolute figures do not say much."""
    before = facts["fma_gflops_per_core"]["1"]
    after = machine.fma_peak(1) / 1e9
    if abs(after - before) > machine.DRIFT_WARNING * before:
        print(
            f"WARNING: one core's FMA peak was {before:g} GFLOP/s before, {after:.1f} after: "
            "its clock moved; ratios hold, absolute figures less",
            file=sys.stderr,
        )
