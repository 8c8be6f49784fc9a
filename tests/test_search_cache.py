"""Accuracies on disk: measured once, kept apart by weights and images, and a torn line costs one accuracy."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nas2edge import SubnetConfig, load_space
from nas2edge.errors import FormatError, InputError
from nas2edge.search.cache import CachedEvaluator, digest_of_images

SPACE = load_space("tiny")
NETS = [SPACE.smallest(), SPACE.largest()]


class _Counting:
    def __init__(self) -> None:
        self.asked: list[SubnetConfig] = []

    def __call__(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        self.asked += subnets
        return [float(subnet.resolution) for subnet in subnets]


def _cached(path: Path, *, supernet: str = "ab", data: str = "cd") -> tuple[CachedEvaluator, _Counting]:
    counting = _Counting()
    return CachedEvaluator(counting, path, supernet_sha256=supernet, data=data), counting


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    cached, counting = _cached(tmp_path / "a.jsonl")
    assert cached([NETS[0], NETS[1], NETS[0]]) == [24.0, 32.0, 24.0]
    assert counting.asked == NETS

    again, none = _cached(tmp_path / "a.jsonl")

    assert again(NETS) == [24.0, 32.0]
    assert none.asked == []


def test_what_came_before_an_interruption_is_kept(tmp_path: Path) -> None:
    def interrupted(subnets: Sequence[SubnetConfig]) -> Iterator[float]:
        yield float(subnets[0].resolution)
        raise KeyboardInterrupt

    cached = CachedEvaluator(interrupted, tmp_path / "a.jsonl", supernet_sha256="ab", data="cd")
    with pytest.raises(KeyboardInterrupt):
        cached(NETS)

    again, counting = _cached(tmp_path / "a.jsonl")
    again(NETS)
    assert counting.asked == NETS[1:]


def test_every_accuracy_is_counted_once_known_ones_at_once(tmp_path: Path) -> None:
    cached, _ = _cached(tmp_path / "a.jsonl")
    cached(NETS[:1])
    advanced: list[int] = []
    cached.watch(advanced.append)

    cached([*NETS, SPACE.smallest()])

    assert advanced == [2, 1]


@pytest.mark.parametrize("other", [{"supernet": "ef"}, {"data": "ef"}])
def test_other_weights_and_other_images_are_kept_apart(tmp_path: Path, other: dict[str, str]) -> None:
    _cached(tmp_path / "a.jsonl")[0](NETS)

    cached, counting = _cached(tmp_path / "a.jsonl", **other)
    cached(NETS)

    assert counting.asked == NETS
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 4


def test_no_file_is_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    _cached(tmp_path / "a.jsonl")

    assert not (tmp_path / "a.jsonl").exists()


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    _cached(path)[0](NETS)
    whole = path.read_text()
    path.write_text(whole[:-10])

    cached, counting = _cached(path)
    cached(NETS)

    assert counting.asked == NETS[1:]
    assert path.read_text() == whole


def test_a_damaged_file_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"supernet": "ab"}\n')

    with pytest.raises(FormatError, match=r"a.jsonl, line 1 does not read .*; remove the file to measure anew"):
        _cached(tmp_path / "a.jsonl")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose another folder by --cache"):
        _cached(tmp_path / "none" / "a.jsonl")[0](NETS)


def test_a_digest_tells_images_apart(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.png").write_bytes(b"one")
    (tmp_path / "a.zip").write_bytes(b"zip")
    (tmp_path / "b.zip").write_bytes(b"zip")
    before = digest_of_images(tmp_path / "x")

    (tmp_path / "x" / "2.png").write_bytes(b"two")

    assert digest_of_images(tmp_path / "x") != before
    assert digest_of_images(tmp_path / "a.zip", None) == digest_of_images(tmp_path / "b.zip", None)
    assert digest_of_images(None) != digest_of_images(tmp_path / "a.zip")
