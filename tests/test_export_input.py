"""Bad input and bad luck: clear messages, the right exit code, and nothing lost or left behind."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nas2edge.cli import main
from nas2edge.errors import InputError
from nas2edge.export.bundle import building
from nas2edge.export.pipeline import ExportRequest, export
from nas2edge.spaces import load_space
from nas2edge.subnet_file import SubnetFile
from nas2edge.supernet.checkpoint import load_supernet
from tests.export_run import CLASSES, write_images, write_run

SPACE = load_space("tiny")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("supernet") / "run", images=2)


@pytest.fixture
def request_of(run_folder, tmp_path):
    loaded = load_supernet(str(run_folder))
    file = SubnetFile(space=SPACE, subnet=SPACE.smallest())
    return lambda **changes: replace(ExportRequest(file=file, supernet=loaded, out=tmp_path / "bundle"), **changes)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "smallest", "--to", "onnx", *arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- weights and images ----------------------------------------------------------------------------------------------


def test_corrupt_weights_are_refused(run_folder, tmp_path):
    broken = tmp_path / "run"
    broken.mkdir()
    whole = (run_folder / "supernet.safetensors").read_bytes()
    (broken / "supernet.safetensors").write_bytes(whole[: len(whole) // 2])

    done = command("--supernet", str(broken), "--out", str(tmp_path / "bundle"))

    assert done.exit_code == 2
    assert "is not a readable safetensors file" in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_an_image_that_does_not_decode_is_named(run_folder, tmp_path):
    data = tmp_path / "data" / "validation"
    for name in CLASSES:
        (data / name).mkdir(parents=True)
        (data / name / "a.png").write_bytes(b"no image")

    done = command("--supernet", str(run_folder), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "bundle"))

    assert done.exit_code == 2
    assert "validation/a/a.png does not decode as an image" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_int8_without_calibration_images_is_refused(run_folder, tmp_path):
    """Not even validation images replace them."""
    bare = tmp_path / "run"
    bare.mkdir()
    (bare / "supernet.safetensors").write_bytes((run_folder / "supernet.safetensors").read_bytes())
    write_images(bare / "images.zip", ("validation",), images=2)
    arguments = ("--supernet", str(bare), "--recalibrate", "0", "--precision", "int8", "--out", str(tmp_path / "b"))

    done = command(*arguments)

    assert done.exit_code == 2
    assert "has no folder 'calibration'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "cat\ndog\n", "there are 2 labels, and the network has 10 classes"),
        ("labels.txt", "cat\n" * 10, "the label 'cat' stands for more than one class"),
        ("labels.json", "{}", 'is not a list of labels; expected JSON such as ["cat", "dog"]'),
        ("labels.json", "[", "does not parse"),
        ("labels.txt", b"\xff\xfe\x00", "is not a text file"),
        ("elsewhere", None, "cannot read the labels in"),
    ],
)
def test_labels_that_do_not_match_are_refused(run_folder, tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    done = command("--supernet", str(run_folder), "--labels", str(path), "--out", str(tmp_path / "bundle"))

    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_labels_are_carried(run_folder, tmp_path):
    names = [f"kind {i}" for i in range(10)]
    (tmp_path / "labels.json").write_text(json.dumps(names))
    out = tmp_path / "bundle"

    done = command("--supernet", str(run_folder), "--labels", str(tmp_path / "labels.json"), "--out", str(out))

    assert done.exit_code == 0, done.stderr
    assert json.loads((out / "manifest.json").read_text())["classes"] == names


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(request_of, tmp_path, monkeypatch):
    out = export(request_of()).folder
    before = contents(out)
    honest = Path.write_bytes

    def full(self, data):
        if self.name == "model.onnx":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return honest(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(InputError, match=r"cannot write .*bundle: No space left on device; make room or give --out"):
        export(request_of())

    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_disk_that_fills_while_the_report_is_written_loses_nothing(request_of, tmp_path, monkeypatch):
    def full(self, text, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)

    with pytest.raises(InputError, match=r"cannot write .*bundle: No space left on device"):
        export(request_of())

    assert not list(tmp_path.iterdir())


_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from nas2edge.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file sizes are Linux's")
def test_a_real_limit_of_file_sizes_is_said(run_folder, tmp_path):
    """No stand-in: the system itself refuses to write the 0.8 MB of the model."""
    arguments = ("export", "smallest", "--to", "onnx", "--supernet", str(run_folder), "--out", "bundle")

    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "error: cannot write bundle: File too large; make room or give --out another folder" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(run_folder):
    done = command("--supernet", str(run_folder), "--out", "/proc/bundle")

    assert done.exit_code == 2
    assert "cannot write /proc/bundle" in done.stderr
    assert "give --out a folder that is writable" in done.stderr


# --- interruptions ---------------------------------------------------------------------------------------------------

_SLOW = """
import signal, sys, time
from nas2edge.export import pipeline

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without it

def wait(*arguments, **options):
    print("waiting", flush=True)
    time.sleep(60)

pipeline.check_accuracy = wait
from nas2edge.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_an_export_and_leaves_nothing(run_folder, tmp_path, number):
    arguments = ("export", "smallest", "--to", "onnx", "--supernet", str(run_folder), "--out", "bundle")
    command = [sys.executable, "-c", _SLOW, *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "waiting" in line:
                break

        process.send_signal(number)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "cancelled"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for as POSIX does")
def test_what_a_killed_export_left_is_cleared_away(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, running = tmp_path / f".bundle.{gone.pid}.abc.part", tmp_path / f".bundle.{os.getpid()}.abc.part"
    for folder in (left, running):
        folder.mkdir()

    with building(tmp_path / "bundle") as part:
        (part / "file").write_text("x")

    assert not left.exists()
    assert running.exists()


def test_a_bundle_that_was_being_replaced_is_put_back(tmp_path):
    old = tmp_path / ".bundle.old"
    old.mkdir()
    (old / "file").write_text("mine")

    with pytest.raises(ValueError), building(tmp_path / "bundle"):
        raise ValueError

    assert (tmp_path / "bundle" / "file").read_text() == "mine"


# --- the same again --------------------------------------------------------------------------------------------------


def test_other_weights_are_another_network(run_folder, tmp_path):
    other = write_run(tmp_path / "other", seed=1, images=2)
    out = ("--out", str(tmp_path / "bundle"))

    first = command("--supernet", str(run_folder), *out)
    refused = command("--supernet", str(other), *out)
    forced = command("--supernet", str(other), *out, "--force")

    assert (first.exit_code, refused.exit_code, forced.exit_code) == (0, 2, 0)
    assert "bundle holds this sub-network with other weights (sha256 " in refused.stderr
    assert "to the byte" not in first.stdout


def test_the_same_again_is_said_to_be_the_same(run_folder, tmp_path):
    arguments = ("--supernet", str(run_folder), "--out", str(tmp_path / "bundle"))

    first, again = command(*arguments), command(*arguments)
    other = command(*arguments, "--opset", "13")

    assert "as in the bundle that was there" not in first.stdout
    assert "every file is the same, to the byte, as in the bundle that was there" in again.stdout
    assert "other than in the bundle that was there: manifest.json" not in again.stdout
    assert "other than in the bundle that was there: model.onnx, " in other.stdout


def test_a_bundle_runs_where_it_was_moved(run_folder, tmp_path):
    """Its own commands, as the report has them."""
    made = tmp_path / "made"
    assert command("--supernet", str(run_folder), "--out", str(made), "--precision", "fp32,int8").exit_code == 0
    moved = tmp_path / "elsewhere" / "with spaces"
    moved.parent.mkdir()
    made.rename(moved)
    commands = json.loads((moved / "manifest.json").read_text())["commands"]

    for what, text in commands.items():
        if not what.startswith("Compare"):
            continue
        done = subprocess.run(
            ["sh", "-c", text.replace("python -", f"{sys.executable} -", 1)],
            cwd=moved, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert float(done.stdout.split()[-1]) < 1e-4
    assert len([what for what in commands if what.startswith("Compare")]) == 2


def test_json_says_what_was_made(run_folder, tmp_path):
    done = command("--supernet", str(run_folder), "--out", str(tmp_path / "b"), "--precision", "fp32,fp16", "--json")

    told = json.loads(done.stdout)
    assert [(row["target"], row["precision"]) for row in told["made"]] == [("onnx", "fp32"), ("onnx", "fp16")]
    assert all(row["latency"]["median_ms"] > 0 for row in told["made"])
    assert told["made"][0]["size_bytes"] == (tmp_path / "b" / "model.onnx").stat().st_size
    assert told["accuracy"].keys() == {"network", "onnx", "images", "fp16"}


def test_pixels_are_taken_as_they_are(run_folder, tmp_path):
    out = tmp_path / "bundle"
    done = command("--supernet", str(run_folder), "--out", str(out), "--with-preprocess")

    assert done.exit_code == 0, done.stderr
    rule = json.loads((out / "manifest.json").read_text())["preprocess"]
    assert (rule["dtype"], rule["layout"]) == ("uint8", "NHWC")
    assert rule["resize"].endswith("from 32 to 24, before anything else, rounded to 0 to 255")
    with np.load(out / "parity.npz") as recorded:
        assert recorded["images"].dtype == np.uint8
        assert recorded["images"].shape == (4, 24, 24, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "onnx", "--all-targets"), "--to and --all-targets were both given"),
        ((), "no target was given; expected --to with one or more of"),
        (("--to", "onnx,,trt"), "--to 'onnx,,trt' has an empty name"),
        (("--to", "onnx,tensort"), "unknown target 'tensort'"),
        (("--to", "onnx", "--precision", "fp8"), "unknown precision 'fp8'; known: fp16, fp32, int8"),
        (("--to", "onnx", "--precision", ""), "--precision '' has an empty name"),
    ],
)
def test_unusable_choices_end_with_2(run_folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(main, ["export", "smallest", "--supernet", str(run_folder), *arguments])

    assert done.exit_code == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
