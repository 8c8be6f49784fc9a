"""The pytest plugin: in sessions of its own, as a project would use it; also under pytest-xdist, and without torch."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from nas2edge.bench.lock import measuring_alone
from nas2edge.errors import InconclusiveError
from tests.bench_nets import chain

CONFIG = "[pytest]\naddopts = --strict-markers -p no:cacheprovider -p no:anyio\nfilterwarnings = error\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Returns a function that runs pytest on a test module in a folder with networks of 4 and 5 blocks."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for blocks in (4, 5):
        chain(tmp_path, blocks).rename(tmp_path / f"net{blocks}.onnx")
    (tmp_path / "pytest.ini").write_text(CONFIG)

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(f"import pytest\n{code}\n")
        plugin = [] if entry_point_is_installed() else ["-p", "nas2edge.bench.pytest_plugin"]
        command = [sys.executable, "-m", "pytest", "-rs", *plugin, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)

    return run


def entry_point_is_installed() -> bool:
    from importlib.metadata import entry_points

    return any(entry.name == "nas2edge" for entry in entry_points(group="pytest11"))


DETERMINISTIC = """
@pytest.mark.latency(gate="deterministic")
def test_same(latency):
    report = latency("net4.onnx", baseline="net4.onnx")
    assert report.new.nodes == report.old.nodes

@pytest.mark.latency(gate="deterministic", max_slowdown="5%")
def test_larger(latency):
    latency("net5.onnx", baseline="net4.onnx")

@pytest.mark.latency(gate="deterministic", max_growth="30%")
def test_larger_but_allowed(latency):
    latency("net5.onnx", baseline="net4.onnx")
"""


def test_costs_are_gated_and_become_properties(project, tmp_path):
    done = project(DETERMINISTIC, "--junitxml=junit.xml")
    cases = {case.get("name"): case for case in ElementTree.parse(tmp_path / "junit.xml").iter("testcase")}
    properties = {entry.get("name"): entry.get("value") for entry in cases["test_larger"].iter("property")}

    assert done.returncode == 1
    assert "2 passed" in done.stdout and "1 failed" in done.stdout
    assert "MACs: 102.4k to 128k (+25.0%), at most +5.0% allowed" in done.stdout
    assert "test_it.py::test_larger: failed" in done.stdout  # the summary of our own
    assert properties["nas2edge.verdict"] == properties["nas2edge.MACs.verdict"] == "failed"
    assert properties["nas2edge.activation_memory.verdict"] == "passed"


def test_an_inconclusive_test_is_skipped_with_its_reason_unless_it_may_fail_or_pass(project):
    code = "".join(
        f"""
@pytest.mark.latency(gate="measured", max_slowdown="300%", budget="1ms"{more})
def test_{name}(latency):
    latency("net4.onnx", baseline="net4.onnx")
"""
        for name, more in (("skip", ""), ("fail", ", inconclusive='fail'"), ("pass", ", inconclusive='pass'"))
    )
    done = project(code)

    assert "1 failed, 1 passed, 1 skipped" in done.stdout
    assert "net4.onnx: inconclusive; measured latency: the budget of 0.001 s holds fewer than 3 rounds" in done.stdout


@pytest.mark.slow
def test_under_xdist_measurements_wait_for_each_other(project, tmp_path):
    """Two processes measure; the times in which they hold the lock, as properties have them, do not overlap."""
    code = """
import time
@pytest.mark.latency(gate="measured", max_slowdown="300%", budget="200s")
@pytest.mark.parametrize("n", [0, 1])
def test_same(latency, n, record_testsuite_property, request):
    latency("net4.onnx", baseline="net4.onnx")
    end = time.time()
    properties = dict(request.node.user_properties)
    request.node.user_properties.append(("span", (end - properties["nas2edge.measured_latency.seconds"], end)))
"""
    done = project(code, "-n", "2", "--junitxml=junit.xml")
    spans = [
        eval(entry.get("value") or "")
        for entry in ElementTree.parse(tmp_path / "junit.xml").iter("property")
        if entry.get("name") == "span"
    ]

    assert done.returncode == 0, done.stdout
    first, second = sorted(spans)
    assert first[1] <= second[0] + 0.5
    assert done.stdout.count("measured ") == 2  # both lines of the summary


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("latency(max_slowdwn='5%')", "takes max_slowdown, .*; got 'max_slowdwn'"),
        ("latency('5%')", "each by its name; got '5%'"),
        ("latency(inconclusive='ignore')", "inconclusive is 'ignore'; expected one of skip, fail, pass"),
        ("latency(budget='0s')", "'0s' is 0.0; expected a positive number"),
    ],
)
def test_markers_that_make_no_sense_are_errors(marker, said, project):
    done = project(f"@pytest.mark.{marker}\ndef test_it(latency):\n    latency('net4.onnx', baseline='net4.onnx')")

    assert done.returncode != 0
    assert re.search(said, done.stdout)


def test_options_go_over_markers_and_help_lists_both(project):
    done = project(DETERMINISTIC.replace('gate="deterministic"', 'gate="measured"'), "--latency-gate", "deterministic",
                   "-k", "same")  # fmt: skip
    listed = project("", "--markers")

    assert "1 passed" in done.stdout
    assert "@pytest.mark.latency(max_slowdown='5%'" in listed.stdout


def test_collecting_imports_nothing_heavy(project):
    code = """
import sys
print("HEAVY", sorted({"torch", "onnx", "onnxruntime", "rich", "nas2edge.latency"} & set(sys.modules)))
def test_it():
    pass
"""
    assert "HEAVY []" in project(code, "--collect-only", "-s").stdout


def test_the_lock_lets_one_in_and_says_when_it_takes_too_long(tmp_path):
    path = tmp_path / "lock"
    code = (
        "from pathlib import Path\nfrom nas2edge.bench.lock import measuring_alone\n"
        f"with measuring_alone(Path({str(path)!r}), patience_s=0.1): pass"
    )
    with measuring_alone(path):
        waited = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        with pytest.raises(InconclusiveError, match="another measurement held"), measuring_alone(path, patience_s=0.1):
            pass
    free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert waited.returncode != 0 and "another measurement held" in waited.stderr
    assert free.returncode == 0
