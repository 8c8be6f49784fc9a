"""action.yml: its script run as GitHub runs it, with inputs as the environment has them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.bench_nets import chain

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEP = ACTION["runs"]["steps"][1]


@pytest.fixture
def check(tmp_path):
    """Returns a function that runs the step with inputs over the defaults; gives the process, outputs and summary."""
    for blocks in (2, 3):
        chain(tmp_path, blocks).rename(tmp_path / f"net {blocks}.onnx")

    def run(**inputs: str):
        given = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | inputs
        environment = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: given[match[1]], text)
            for name, text in STEP["env"].items()
        }
        files = {name: tmp_path / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEP["run"]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, **environment, **{name: str(file) for name, file in files.items()},
                 "RUNNER_TEMP": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        return done, outputs, files["GITHUB_STEP_SUMMARY"].read_text()

    return run


def test_a_network_that_is_as_it_was_passes_with_a_summary(check):
    done, outputs, summary = check(new="net 2.onnx", baseline="net 2.onnx", gate="deterministic")

    assert done.returncode == 0, done.stderr
    assert outputs["verdict"] == "passed"
    assert json.loads(Path(outputs["report"]).read_text())["verdict"] == "passed"
    assert summary.startswith("### ✅ passed: `net 2.onnx` against `net 2.onnx`")


def test_a_larger_one_fails_with_an_annotation(check):
    done, outputs, summary = check(new="net 3.onnx", baseline="net 2.onnx", gate="deterministic")

    assert done.returncode == 6
    assert outputs["verdict"] == "failed"
    assert "::error title=nas2edge check::net 3.onnx is slower or larger than allowed" in done.stdout
    assert "### ❌ failed" in summary


@pytest.mark.parametrize(("strict", "code"), [("false", 0), ("true", 5)])
def test_noise_is_a_warning_unless_it_shall_fail(check, strict, code):
    inputs = {"new": "net 2.onnx", "baseline": "net 2.onnx", "gate": "measured", "budget": "1ms"}
    done, outputs, _ = check(**inputs, **{"fail-on-inconclusive": strict})

    assert done.returncode == code
    assert outputs["verdict"] == "inconclusive"
    assert "::warning title=nas2edge check::" in done.stdout


def test_what_cannot_be_checked_is_an_error(check):
    done, outputs, _ = check(new="none.onnx", baseline='$(touch hacked)";', gate="deterministic")

    assert done.returncode == 2
    assert outputs["verdict"] == "error"
    assert not list(Path(outputs["report"]).parent.glob("hacked"))


def test_every_input_is_described_and_used():
    text = (ROOT / "action.yml").read_text()

    for name, entry in ACTION["inputs"].items():
        assert entry["description"].endswith(".")
        assert f"inputs.{name} }}}}" in text
