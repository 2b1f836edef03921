"""Oracles: live comparisons with other libraries; with GAPLESS_ORACLES=required none may be skipped."""

from __future__ import annotations

import os

import pytest

# Comparisons that may be skipped even where oracles are required, each with its reason.
MAY_SKIP: dict[str, str] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("GAPLESS_ORACLES") == "required" and item.nodeid not in MAY_SKIP:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: an oracle was skipped where all are required: {report.longrepr}"


def pytest_collectreport(report):
    if report.skipped and os.environ.get("GAPLESS_ORACLES") == "required":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: an oracle was skipped where all are required: {report.longrepr}"
