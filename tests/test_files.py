"""Files: written in one step or not at all, read with their format and version checked."""

import json

import numpy as np
import pytest
from safetensors import SafetensorError

from nas2edge.errors import FormatError, InputError
from nas2edge.files import atomic_path, read_document, save_tensors, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as part:
        part.write_text("half of the n")
        raise ZeroDivisionError

    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_success_replaces_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    write_text(tmp_path / "a.txt", "new")

    assert (tmp_path / "a.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    write_text(tmp_path / "ours", "")

    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*nowhere/a\.txt: No such file or directory; choose a folder"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_json_is_indented_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})

    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1\n}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "does not parse"),
        ("[1, 2]", 'it has no "format" entry'),
        ('{"version": 1}', 'it has no "format" entry'),
        ('{"format": "other", "version": 1}', "is a 'other' file; expected 'mine'"),
        ('{"format": "mine", "version": 2}', "has version 2; this nas2edge reads version 1 of mine"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(FormatError, match=message):
        read_document(tmp_path / "a.json", format="mine", version=1)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FormatError, match=r"cannot read .*a\.json: No such file"):
        read_document(tmp_path / "a.json", format="mine", version=1)


def test_a_binary_file_is_told(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(FormatError, match="is not a text file"):
        read_document(tmp_path / "a.json", format="mine", version=1)


def test_json_and_toml_are_told_apart_by_their_suffix(tmp_path):
    (tmp_path / "a.toml").write_text('format = "mine"\nversion = 1\nx = 3\n')
    (tmp_path / "a.json").write_text(json.dumps({"format": "mine", "version": 1, "x": 3}))

    documents = [read_document(tmp_path / f"a.{kind}", format="mine", version=1) for kind in ("toml", "json")]
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "format = "),
        ("a.toml", "format = " + "[" * 100_000),
        ("a.json", "[" * 100_000),
        ("a.json", '{"format": ' + "1" * 5000 + "}"),
    ],
    ids=["toml", "deep toml", "deep json", "number of 5000 digits"],
)
def test_a_file_that_does_not_parse_is_told(tmp_path, name, text):
    (tmp_path / name).write_text(text)

    with pytest.raises(FormatError, match=f"{name} does not parse: ."):
        read_document(tmp_path / name, format="mine", version=1)


def test_a_folder_cannot_be_replaced_by_a_file(tmp_path):
    (tmp_path / "a").mkdir()

    with pytest.raises(InputError, match="cannot write .*/a: Is a directory"):
        write_text(tmp_path / "a", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_of_the_system_says_why_even_without_its_number(tmp_path):
    with pytest.raises(InputError, match="cannot write .*/a: 7 requested and 3 written"), atomic_path(tmp_path / "a"):
        raise OSError("7 requested and 3 written")  # as NumPy says that the disk is full
    assert not list(tmp_path.iterdir())


def test_tensors_that_do_not_fit_the_disk_leave_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    with atomic_path(path) as part:
        save_tensors(part, {"a": np.ones(3)}, metadata={"kind": "old"}, library="numpy")
    before = path.read_bytes()

    def full(*arguments: object, **options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(InputError, match="cannot write .*No space left"), atomic_path(path) as part:
        save_tensors(part, {"a": np.ones(4)}, metadata={}, library="numpy")

    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
