"""Bundles: complete under their name or not there at all; nobody else's files are touched."""

import json
from pathlib import Path

import pytest

from nas2edge.errors import InputError
from nas2edge.export.bundle import building, check_replaceable, keep_as_failed


def write_bundle(folder: Path, subnet_id: str = "one") -> Path:
    folder.mkdir()
    manifest = {"format": "nas2edge.bundle", "version": 1, "subnet": {"id": subnet_id}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_bundle_appears_when_it_is_complete(tmp_path):
    out = tmp_path / "made" / "on the way" / "bundle"

    with building(out) as part:
        (part / "model.onnx").write_text("new")
        assert not out.exists()

    assert (out / "model.onnx").read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_bundle_leaves_nothing_and_the_old_one(tmp_path, error):
    old = write_bundle(tmp_path / "bundle")

    with pytest.raises(error), building(old) as part:
        (part / "model.onnx").write_text("half")
        raise error

    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert [path.name for path in old.iterdir()] == ["manifest.json"]


def test_a_new_bundle_replaces_the_old_one_as_a_whole(tmp_path):
    old = write_bundle(tmp_path / "bundle")

    with building(old) as part:
        (part / "model.onnx").write_text("new")

    assert [path.name for path in old.iterdir()] == ["model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failed_bundle_is_kept_under_another_name(tmp_path):
    out = tmp_path / "bundle"

    with pytest.raises(ValueError), building(out) as part:  # raised right here
        (part / "report.json").write_text("{}")
        keep_as_failed(part, out)
        raise ValueError

    assert [path.name for path in tmp_path.iterdir()] == ["bundle.failed"]
    assert (tmp_path / "bundle.failed" / "report.json").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="give --out a folder that is writable"), building(tmp_path / "file" / "b"):
        pass


def test_nothing_there_or_the_same_network_may_be_written(tmp_path):
    (tmp_path / "empty").mkdir()

    check_replaceable(tmp_path / "new", subnet_id="one", force=False)
    check_replaceable(tmp_path / "empty", subnet_id="one", force=False)
    check_replaceable(write_bundle(tmp_path / "same"), subnet_id="one", force=False)


def test_another_network_needs_force(tmp_path):
    out = write_bundle(tmp_path / "bundle", "two")

    with pytest.raises(InputError, match=r"holds another sub-network \(two, not one\); give --out another name"):
        check_replaceable(out, subnet_id="one", force=False)
    check_replaceable(out, subnet_id="one", force=True)


def test_a_broken_manifest_needs_force(tmp_path):
    out = write_bundle(tmp_path / "bundle")
    (out / "manifest.json").write_text("{")

    with pytest.raises(InputError, match="holds a bundle that does not read"):
        check_replaceable(out, subnet_id="one", force=False)


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_bundle_is_never_replaced(tmp_path, force):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    (tmp_path / "file").write_text("")

    for name in ("photos", "file"):
        with pytest.raises(InputError, match="exists and is no bundle"):
            check_replaceable(tmp_path / name, subnet_id="one", force=force)


def test_what_is_no_report_is_not_replaced_by_a_failed_export(tmp_path):
    (tmp_path / "bundle.failed").mkdir()
    (tmp_path / "bundle.failed" / "notes.txt").write_text("mine")

    with pytest.raises(InputError, match="is in the way of a failed export's report"):
        check_replaceable(tmp_path / "bundle", subnet_id="one", force=True)
