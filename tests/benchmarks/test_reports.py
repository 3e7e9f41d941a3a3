"""Files with the structure of public reports: none is labelled wrongly with confidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.conformance.reports import Answer, Report, answer, markdown, reports

REPORTS = list(reports())


def test_there_are_reports_from_many_projects_each_with_its_thread() -> None:
    assert len(REPORTS) >= 45
    assert len({report.thread for report in REPORTS}) == len(REPORTS)
    assert len({report.thread.split("/")[4] for report in REPORTS}) >= 20
    assert all(report.thread.split("/")[-2] in ("issues", "pull") for report in REPORTS)


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.thread.removeprefix("https://github.com/"))
def test_no_report_is_labelled_wrongly(report: Report) -> None:
    try:
        found = answer(report)
    except ImportError as missing:
        pytest.skip(f"{missing.name} writes the container, and is not installed")
    assert found.outcome in ("right", "abstained"), (found.label, found.confidence, found.reasons)


def test_the_table_names_every_report_and_counts_it_once() -> None:
    report = Report("https://github.com/a/b/issues/1", "a norm", "RMSNorm", Path)
    table = markdown([Answer(report, "LayerNorm", 0.95, ()), Answer(report, None, None, ())])
    assert "| RMSNorm | 2 | 0 | 0 | 1 | 0 | 1 |" in table
    assert "| [a/b/issues/1](https://github.com/a/b/issues/1) | a norm | RMSNorm | LayerNorm 95% |" in table
    assert table.endswith("not read |")
