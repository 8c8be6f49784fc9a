"""Training from files, and by several processes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nas2edge.errors import DataError
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.evaluate import Share, SupernetEvaluator
from nas2edge.supernet.images import ImageFile, ImageSet, decode, read_images
from nas2edge.supernet.synced import Total
from nas2edge.train.data import FileSource, MemorySource, Request, TrainFiles, list_files, make_source
from nas2edge.train.processes import ALONE, Process, average_gradients
from nas2edge.train.recipe import load_recipe
from tests.image_folders import write_bright_and_dark


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bright_and_dark(tmp_path_factory.mktemp("images"), each=16, height=40, width=48, suffix="jpg")


@pytest.fixture(scope="module")
def files(folder) -> TrainFiles:
    return list_files(folder, held_out=4, calibration=8, seed=0)


def request(n: int, *, seed: int = 0) -> Request:
    return Request(images=torch.arange(n), seed=seed)


def test_files_are_served_cropped_and_normalised(files):
    source = FileSource(files, image_size=32, auto_augment=True, workers=0)

    batches = list(source.batches([request(6), Request(images=torch.arange(6, 12), seed=1)]))

    assert [tuple(images.shape) for images, _ in batches] == [(6, 3, 32, 32)] * 2
    assert torch.cat([labels for _, labels in batches]).tolist() == [file.label for file in files.training[:12]]
    assert all(abs(float(images.mean())) < 2.0 for images, _ in batches)


def test_equal_requests_give_equal_batches_whatever_came_before(files):
    source = FileSource(files, image_size=32, auto_augment=True, workers=0)

    (first, _), (other, _) = source.batches([request(4, seed=1), request(4, seed=2)])
    ((again, _),) = source.batches([request(4, seed=1)])

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_worker_processes_serve_the_same_images(files):
    alone = FileSource(files, image_size=32, auto_augment=True, workers=0)
    helped = FileSource(files, image_size=32, auto_augment=True, workers=1)

    ((expected, _),), ((images, labels),) = (source.batches([request(5)]) for source in (alone, helped))

    assert torch.equal(images, expected)
    assert labels.tolist() == [file.label for file in files.training[:5]]


def test_workers_are_no_copies_of_a_process_with_threads(files, monkeypatch):
    """A fork copies locks that threads hold; a test run once ended in a segmentation fault at the first one."""

    def fork():
        raise AssertionError("forked")

    monkeypatch.setattr(os, "fork", fork)
    assert len(list(FileSource(files, image_size=32, auto_augment=False, workers=1).batches([request(5)]))) == 1


def broken(files: TrainFiles, n: int, folder: Path) -> TrainFiles:
    """The same files, of which the first n are cut off in the middle; the rest is there ten times."""
    bad = []
    for i, file in enumerate(files.training[:n]):
        path = folder / f"bad{i}.jpg"
        path.write_bytes(file.path.read_bytes()[:400])
        bad.append(ImageFile(path=path, label=file.label))
    return replace(files, training=[*bad, *files.training[n:] * 10])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_file_is_left_out_and_named_once(files, tmp_path, caplog, workers):
    source = FileSource(broken(files, 1, tmp_path), image_size=32, auto_augment=False, workers=workers)
    caplog.clear()

    batches = list(source.batches([request(4), request(4)]))

    assert [len(labels) for _, labels in batches] == [3, 3]
    assert [record.message for record in caplog.records] == [f"left out: {next(iter(source._skipped.problems))}"]
    assert "bad0.jpg does not decode as an image" in caplog.text


def test_too_many_corrupt_files_are_refused(files, tmp_path):
    source = FileSource(broken(files, 2, tmp_path), image_size=32, auto_augment=False, workers=0)
    many = broken(files, 4, tmp_path)
    source._dataset._files = many.training
    with pytest.raises(DataError, match=r"3 of 262 training images do not decode, and 1% may; the first: .*bad0\.jpg"):
        list(source.batches([request(6)]))

    with pytest.raises(DataError, match=r"3 of 244 training images do not decode"):
        FileSource(many, image_size=32, auto_augment=False, workers=0)


def test_corrupt_files_are_left_out_of_memory_too(files, tmp_path):
    recipe = load_recipe("none", {"augmentation": "flip-crop"})
    source = make_source(broken(files, 2, tmp_path), recipe, image_size=32)
    assert len(source) == 260

    with pytest.raises(DataError, match=r"3 of \d+ training images do not decode"):
        make_source(broken(files, 5, tmp_path), recipe, image_size=32)


def test_a_lone_process_reduces_nothing():
    model = torch.nn.Linear(2, 2)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.grad.clone()

    average_gradients(model, ALONE)

    assert Process().first
    assert torch.equal(model.weight.grad, before)


def test_processes_that_share_a_batch_serve_what_one_would(files):
    images = decode(files.training, files.classes, image_size=32)
    source = MemorySource(images, padding=4)
    numbers = torch.arange(6)

    ((whole, labels),) = source.batches([Request(images=numbers, seed=3)])
    for rank in range(2):
        ((part, some),) = source.batches([Request(images=numbers, seed=3, rank=rank, world=2)])
        assert torch.equal(part, whole[rank::2])
        assert torch.equal(some, labels[rank::2])


def test_two_shares_evaluate_as_the_whole():
    """Each process's sums are added up as all-reduce would, by running both with the other's on record."""
    supernet = load_supernet("builtin:tiny")
    subnet = supernet.info.space.smallest()
    images = read_images(supernet.info.images, "validation", image_size=32)
    few = [ImageSet(pixels=images.pixels[:n], labels=images.labels[:n], classes=images.classes) for n in (1000, 750)]

    whole = SupernetEvaluator(supernet, calibration=few[0], tested=few[1])
    sums: list[torch.Tensor] = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        sums.append(value.clone())
        return value

    def add(value: torch.Tensor) -> torch.Tensor:
        return value + sums.pop(0)

    def shared(rank: int, total: Total) -> SupernetEvaluator:
        return SupernetEvaluator(
            supernet, calibration=few[0], tested=few[1], share=Share(rank=rank, world=2, total=total)
        )

    shared(1, keep).network(subnet)
    first = shared(0, add)
    net = first.network(subnet)
    second = shared(1, keep)
    second.accuracy(net)

    expected = whole.network(subnet)
    for name, value in expected.state_dict().items():
        if value.is_floating_point():  # not the number of batches tracked
            torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert first.accuracy(net) == pytest.approx(whole.accuracy(expected))


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(folder, tmp_path):
    command = [sys.executable, "-m", "nas2edge", "train", "--data", str(folder), "--out", str(tmp_path / "run")]
    command += ["--epochs", "40", "--batch-size", "8", "--held-out", "4", "--calibration", "8", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("epoch"):
                break
        running.send_signal(signal.SIGTERM)
        said = running.stderr.read()

    assert running.returncode == 130
    assert "saving a checkpoint" in said
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_processes_train_one_supernet(folder, tmp_path):
    """By torchrun, over gloo: one run's folder, and all images of every batch used."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nas2edge"]
    command += ["train", "--data", str(folder), "--out", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "8"]
    command += ["--held-out", "4", "--calibration", "8", "--threads", "1", "--set", "augmentation=resized-crop"]
    command += ["--workers", "0"]

    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert done.returncode == 0, done.stderr
    weights = load_file(tmp_path / "run" / "supernet.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert done.stdout.count("wrote ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["flip-crop", "resized-crop"])
def test_two_processes_end_with_the_weights_of_one(folder, tmp_path, augmentation):
    """On the same batches, with synchronised normalisation: accuracies too, whose statistics are reduced."""
    options = ["--data", str(folder), "--epochs", "2", "--batch-size", "8", "--held-out", "4", "--calibration", "8"]
    options += ["--threads", "1", "--workers", "0", "--set", f"augmentation={augmentation}"]
    options += ["--set", "sync_batch_norm=true"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in (("one", []), ("two", torchrun)):
        command = [sys.executable, *start, "-m", "nas2edge", "train", *options, "--out", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr

    one, two = (load_file(tmp_path / name / "supernet.safetensors") for name in ("one", "two"))
    for name, expected in one.items():
        torch.testing.assert_close(
            two[name], expected, rtol=1e-3, atol=2e-4, msg=lambda said, name=name: f"{name}: {said}"
        )
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [line["accuracy_largest"] for line in logs[0]] == [line["accuracy_largest"] for line in logs[1]]


@pytest.mark.slow
def test_two_processes_share_the_subnets_to_evaluate():
    options = ["evaluate", "--random", "3", "--seed", "1", "--threads", "1", "--json"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for start in ([], torchrun):
        command = [sys.executable, *start, "-m", "nas2edge", *options]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0]["subnets"] == found[1]["subnets"]
    assert [result["processes"] for result in found] == [1, 2]
