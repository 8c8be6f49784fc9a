"""Ablation studies: the grid, the sub-networks that judge it, going on after an interruption, and the picture."""

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from nas2edge.cli import main
from nas2edge.errors import FormatError, InputError
from nas2edge.report.boxes import draw_boxes
from nas2edge.spaces import load_space
from nas2edge.train.ablation import Row, make_probe, make_settings, read_rows, study, write_rows
from nas2edge.train.recipe import Recipe
from tests.image_folders import write_bright_and_dark

SPACE = load_space("tiny")


def test_the_grid_names_its_settings():
    settings = make_settings(recipes=["none"], alphas=["1", "-1:1"], betas=[0.5], clips=[1000.0])

    assert {setting.name: dict(setting.changes) for setting in settings} == {
        "none": {"distillation": "none"},
        "alpha 1": {"distillation": "alpha", "alpha": 1.0},
        "alpha -1 to 1": {"distillation": "adaptive-alpha", "alpha_min": -1.0, "alpha_max": 1.0},
        "beta 0.5": {"distillation": "kd", "beta": 0.5},
        "clip 1000": {"distillation": "adaptive-alpha", "clip_ratio": 1000.0},
    }


@pytest.mark.parametrize("alpha", ["much", "1:-1", "1:2:3"])
def test_an_alpha_that_does_not_read_is_told(alpha):
    with pytest.raises(InputError, match="does not read; expected a number, or MIN:MAX"):
        make_settings(alphas=[alpha])


def test_a_grid_without_settings_is_refused():
    with pytest.raises(InputError, match="no setting; give --recipe"):
        make_settings()


def test_the_probe_has_equally_many_subnets_of_each_regime():
    probe = make_probe(SPACE, regimes=4, n=5)

    slack = 7 / 8192 * (probe.edges[-1] - probe.edges[0])
    assert np.bincount(probe.regimes).tolist() == [5, 5, 5, 5]
    for macs, regime in zip(probe.macs, probe.regimes, strict=True):
        assert probe.edges[regime] - slack <= macs <= probe.edges[regime + 1] + slack


def test_a_study_goes_on_where_it_stopped(tmp_path):
    trained: list[tuple[str, int]] = []
    settings = make_settings(recipes=["none", "kd"])
    probe = make_probe(SPACE, regimes=2, n=2)

    def train(setting, recipe):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((setting.name, recipe.seed))
        return lambda subnets: [float(len(trained))] * len(subnets)

    with pytest.raises(KeyboardInterrupt):
        study(SPACE, settings, probe, tmp_path, base=Recipe(), seeds=range(2), train=train)
    kept, trained[:] = list(trained), []
    rows = study(SPACE, settings, probe, tmp_path, base=Recipe(), seeds=range(2), train=train)

    assert kept == [("none", 0), ("kd", 0), ("none", 1)]
    assert trained == [("kd", 1)]
    assert len(rows) == len(read_rows(tmp_path / "accuracies.csv")) == 2 * 2 * 4


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [Row(setting="alpha -1 to 1", seed=2, regime=1, macs=123, accuracy=45.25)]

    write_rows(tmp_path / "a.csv", rows)

    assert read_rows(tmp_path / "a.csv") == rows


def test_a_foreign_csv_is_refused(tmp_path):
    (tmp_path / "accuracies.csv").write_text("a,b\n1,2\n")

    with pytest.raises(FormatError, match="is no ablation study"):
        read_rows(tmp_path / "accuracies.csv")


def test_the_picture_is_drawn(tmp_path):
    draw_boxes(tmp_path / "a.png", {"none": [[1.0, 2.0], [3.0]]}, regimes=["1-2", "2-3"], title="t")

    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning:(matplotlib|pyparsing|dateutil)")
def test_the_command_trains_a_grid(tmp_path):
    write_bright_and_dark(tmp_path / "images", each=24, height=32, width=32)
    arguments = [
        "--data",
        str(tmp_path / "images"),
        "--out",
        str(tmp_path / "study"),
        "--recipe",
        "kd",
        "--alpha",
        "-1:1",
    ]
    arguments += ["--seeds", "1", "--epochs", "1", "--images", "32", "--held-out", "8", "--regimes", "2"]
    arguments += ["--subnets", "1", "--base", str(_small_batches(tmp_path))]

    result = CliRunner().invoke(main, ["ablate", *arguments])

    assert result.exit_code == 0, result.output
    assert "alpha -1 to 1" in result.stdout
    with open(tmp_path / "study" / "accuracies.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert (tmp_path / "study" / "accuracies.png").stat().st_size > 5000


def _small_batches(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text('format = "nas2edge.recipe"\nversion = 1\nbatch_size = 16\n')
    return path
