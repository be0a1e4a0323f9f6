"""What is written of findings: JSON that plans read, and a page."""

import json

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor.checks import Finding, Verdict
from switch_jax.doctor.page import summary
from switch_jax.doctor.results import write_results
from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.measured import read_measured

STEP = {
    "seconds": 0.3,
    "flops_per_second": 1e9,
    "parts": {"attention": 0.2, "experts": 0.1},
    "planned_parts": {"attention": 0.1, "experts": 0.1},
    "planned_seconds": 0.2,
}
FINDINGS = [
    Finding(Verdict.OK, "8 devices", {"devices": 8}, name="devices"),
    Finding(Verdict.SKIPPED, "no kernel", name="attention"),
    Finding(Verdict.FAILED, "lost <b>", {}, "buy a disk", "a checkpoint", 1.25),
    Finding(Verdict.OK, "fast", {"flops_per_second": 2e9}, name="products"),
    Finding(Verdict.OK, "fast", {"bytes_per_second": 3e9}, name="memory"),
    Finding(
        Verdict.OK,
        "",
        {"bytes_per_second": 1e9, "small_seconds": 1e-4},
        name="all-reduce over data",
    ),
    Finding(Verdict.OK, "300 ms", STEP, name="step"),
]


@pytest.fixture
def written(tmp_path):
    file = tmp_path / "new" / "doctor.json"
    write_results(file, "NUM_EXPERTS = 8", make_mesh(MeshConfig(1, 8, 1)), FINDINGS)
    return file


def test_plans_read_what_is_written(written):
    measured = read_measured(str(written))
    assert measured.device_kind == "cpu" and measured.devices == 8
    assert measured.speeds.flops_per_second == 2e9
    ratios = {"attention": 2.0, "experts": 1.0, "all parts": pytest.approx(1.5)}
    assert measured.part_ratios == ratios
    assert json.loads(written.read_text())["versions"]["jax"] == jax.__version__


def test_the_page_has_what_failed_all_checks_and_both_charts(written):
    page = written.with_suffix(".html").read_text()
    assert "1 of 6 checks failed" in page
    assert "<b>a checkpoint</b>: lost &lt;b&gt;; buy a disk" in page
    assert page.count("<tr>") == 1 + len(FINDINGS)
    assert page.count("data:image/svg+xml") == 2 and "8 devices of cpu, mesh 1 x 8 x 1" in page
    assert "<pre>NUM_EXPERTS = 8</pre>" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((UserError, OSError), match="file"):
        write_results(
            tmp_path / "file" / "doctor.json", "", make_mesh(MeshConfig(1, 8, 1)), FINDINGS
        )


def test_a_summary_counts_what_was_done():
    assert summary(FINDINGS) == "1 of 6 checks failed"
    assert summary([f for f in FINDINGS if f.verdict != Verdict.FAILED]) == "5 checks passed"
