"""Recipes: the named ones say what their papers do, files extend them, mistakes are told."""

import json

import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.errors import FormatError, InputError, UnknownNameError
from nas2edge.train.recipe import Recipe, load_recipe, recipe_names


def write(folder, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text('format = "nas2edge.recipe"\nversion = 1\n' + text)
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_named_recipe_loads(name):
    assert isinstance(load_recipe(name), Recipe)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", {"distillation": "none"}),
        ("kd", {"distillation": "kd", "beta": 0.9, "temperature": 1.0}),
        ("bignas", {"distillation": "kd", "beta": 1.0, "decay": "largest", "schedule": "exponential", "floor": 0.05}),
        ("attentivenas", {"choose": "best", "candidates": 3, "beta": 1.0, "random_subnets": 2}),
        (
            "alphanet",
            {"distillation": "adaptive-alpha", "alpha_min": -1.0, "alpha_max": 1.0, "clip_ratio": 5.0,
             "dropout": 0.2, "drop_connect": 0.2, "clip_value": 1.0, "learning_rate_per_256": 0.1,
             "weight_decay": 1e-5, "label_smoothing": 0.1, "momentum": 0.9},
        ),
    ],
)  # fmt: skip
def test_named_recipes_say_what_their_papers_do(name, expected):
    recipe = load_recipe(name)

    assert {field: getattr(recipe, field) for field in expected} == expected


def test_the_learning_rate_scales_with_the_batch():
    """0.1 per 256 images: 0.8 for AlphaNet's 64 x 32."""
    assert Recipe(learning_rate_per_256=0.1, batch_size=64 * 32).learning_rate == pytest.approx(0.8)


def test_a_file_extends_a_named_recipe_and_the_command_line_wins(tmp_path):
    path = write(tmp_path, 'extends = "alphanet"\nepochs = 7\nclip_ratio = 10\n')

    recipe = load_recipe(path, {"epochs": 3, "seed": None})

    assert (recipe.distillation, recipe.epochs, recipe.clip_ratio, recipe.seed) == ("adaptive-alpha", 3, 10.0, 0)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown recipe 'alphnet'; did you mean 'alphanet'"):
        load_recipe("alphnet")


def test_an_unknown_field_lists_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown recipe field 'epoch'; did you mean 'epochs'"):
        load_recipe(write(tmp_path, "epoch = 3\n"))


@pytest.mark.parametrize("line", ['epochs = "ten"', "epochs = 1.5", "auto_augment = 1", "beta = true"])
def test_a_value_of_the_wrong_type_is_told(tmp_path, line):
    with pytest.raises(FormatError, match="expected a"):
        load_recipe(write(tmp_path, line))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('choose = "mean"', "choose is 'mean'; expected one of random, best, worst"),
        ("epochs = 0", "epochs is 0; expected at least 1"),
        ("temperature = 0", "temperature is 0.0; expected a positive number"),
        ("dropout = 1", "dropout is 1.0; expected at least 0 and less than 1"),
        ("alpha_min = 2", "expected min below max"),
    ],
)
def test_a_value_out_of_range_is_told(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        load_recipe(write(tmp_path, line))


def test_recipes_that_extend_each_other_are_refused(tmp_path):
    path = tmp_path / "mine.toml"
    write(tmp_path, f'extends = "{path}"\n')

    with pytest.raises(FormatError, match="in a circle"):
        load_recipe(str(path))


def test_the_command_shows_all_that_a_recipe_sets():
    result = CliRunner().invoke(
        main, ["train", "--recipe", "alphanet", "--set", "clip_ratio=7", "--show-recipe", "--json"]
    )

    shown = json.loads(result.stdout)
    assert shown["distillation"] == "adaptive-alpha"
    assert shown["clip_ratio"] == 7.0


def test_the_command_needs_images_and_a_folder():
    result = CliRunner().invoke(main, ["train", "--recipe", "alphanet"])

    assert result.exit_code == 2
    assert "--data and --out are needed" in result.stderr
