"""Training: losses, the sandwich step, schedule, augmentation, and runs that go on where they stopped."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from nas2edge.cli import main
from nas2edge.cli._train_output import Board
from nas2edge.errors import CheckpointError, DataError, DivergedError, InputError
from nas2edge.space import SearchSpace
from nas2edge.supernet import evaluate
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.elastic import Supernet
from nas2edge.train import state
from nas2edge.train.augment import flip_and_crop
from nas2edge.train.data import TrainFiles, list_files, make_source
from nas2edge.train.loop import Progress, train
from nas2edge.train.losses import KnowledgeDistillation
from nas2edge.train.optim import clip_gradients, learning_rate, make_optimizer
from nas2edge.train.recipe import Recipe
from nas2edge.train.step import StepLosses, add_gradients, make_strategy
from tests.image_folders import write_bright_and_dark
from tests.search_spaces import trainable_space

RECIPE = Recipe(
    epochs=2, batch_size=8, learning_rate_per_256=1.6, warmup_epochs=0.5, crop_padding=1, drop_connect=0.2, beta=1.0
)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return trainable_space(num_classes=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bright_and_dark(tmp_path_factory.mktemp("images"), each=24, height=12, width=12)


@pytest.fixture(scope="module")
def files(folder) -> TrainFiles:
    return list_files(folder, held_out=8, calibration=16, seed=0)


@pytest.fixture(scope="module")
def data(files):
    """The first arguments of train() after the space."""
    return files, make_source(files, RECIPE, image_size=12)


def test_gradients_of_a_step_are_the_sum_over_its_subnets(space):
    torch.manual_seed(0)
    model = Supernet(space).train()
    images, labels = torch.randn(6, 3, 12, 12), torch.arange(6)
    strategy = make_strategy(model, Recipe(label_smoothing=0.1, distillation="kd", beta=1.0))
    add_gradients(model, images, labels, strategy=strategy, rng=np.random.default_rng(0))
    got = model.head["classifier"].weight.grad.clone()

    teacher = model(images, space.largest())
    total = torch.nn.functional.cross_entropy(teacher, labels, label_smoothing=0.1)
    drawn = space.decode(space.sample(2, np.random.default_rng(0)))
    for subnet in (*drawn, space.smallest()):
        total = total + KnowledgeDistillation(beta=1.0)(model(images, subnet), teacher.detach(), labels).mean()
    model.zero_grad()
    total.backward()

    torch.testing.assert_close(got, model.head["classifier"].weight.grad)


def test_a_teacher_from_outside_is_heard(space):
    """With a teacher that is sure of class 2, and nothing else to learn from, the students' gradient points there."""
    torch.manual_seed(0)
    model = Supernet(space).train()
    sure = torch.nn.functional.one_hot(torch.full((6,), 2), 7) * 50.0
    strategy = make_strategy(model, Recipe(beta=1.0, random_subnets=0), teacher=lambda images: sure)
    silent = replace(strategy, largest=KnowledgeDistillation(beta=1.0))

    add_gradients(model, torch.randn(6, 3, 12, 12), torch.zeros(6, dtype=torch.int64), strategy=silent,
                  rng=np.random.default_rng(0))  # fmt: skip

    gradient = model.head["classifier"].bias.grad
    assert gradient[2] < 0
    assert (gradient[[0, 1, 3, 4, 5, 6]] > 0).all()


def test_decay_spares_normalisation_and_biases(space):
    model = Supernet(space)
    decayed = {id(p) for p in make_optimizer(model, RECIPE).param_groups[0]["params"]}

    spared = {name for name, p in model.named_parameters() if id(p) not in decayed}
    assert spared == {name for name, _ in model.named_parameters() if name.endswith("bias") or ".bn." in name}


def test_the_optimizer_does_what_plain_sgd_does_for_late_gradients_too(space):
    models = [Supernet(space) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = make_optimizer(models[0], RECIPE)
    decayed, others = ([p for p in models[1].parameters() if (p.ndim > 1) == matrix] for matrix in (True, False))
    plain = torch.optim.SGD(
        [{"params": decayed, "weight_decay": RECIPE.weight_decay}, {"params": others}],
        lr=RECIPE.learning_rate, momentum=RECIPE.momentum, nesterov=True,
    )  # fmt: skip

    for step in range(3):
        for i, pair in enumerate(zip(*(model.parameters() for model in models), strict=True)):
            gradient = torch.randn_like(pair[0])
            for parameter in pair:
                parameter.grad = None if step == 0 and i % 2 else gradient.clone()
        ours.step()
        plain.step()

    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(value, models[1].state_dict()[name])


def test_gradients_are_clipped_by_entry():
    clipped, unused = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    clipped.grad = torch.tensor([3.0, -0.5, -2.0, float("nan")])

    clip_gradients([clipped, unused], 1.0)

    torch.testing.assert_close(clipped.grad, torch.tensor([1.0, -0.5, -1.0, float("nan")]), equal_nan=True)
    assert unused.grad is None


def test_learning_rate_warms_up_and_ends_at_zero():
    """2 epochs of 10 steps, 5 of warm-up: the rate is 1.6 * 8/256 = 0.05, times warm-up * (1 + cos(pi t / 20)) / 2."""
    rates = [learning_rate(RECIPE, step=t, steps_per_epoch=10) for t in (0, 4, 10, 20)]

    cosine = [0.5 * (1 + math.cos(math.pi * t / 20)) for t in (0, 4, 10, 20)]
    assert rates == pytest.approx([0.05 * 0.2 * cosine[0], 0.05 * cosine[1], 0.05 * 0.5, 0.0])


def test_flip_and_crop_moves_pixels_and_keeps_each_image_to_itself():
    images = torch.arange(4).float().view(4, 1, 1, 1).expand(4, 1, 6, 6).contiguous()

    moved = flip_and_crop(images, padding=2, generator=torch.Generator().manual_seed(0))

    assert torch.equal(moved, images)


def test_flip_and_crop_without_padding_is_a_flip():
    images = torch.randn(32, 3, 5, 5)

    moved = flip_and_crop(images, padding=0, generator=torch.Generator().manual_seed(0))

    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(moved, images, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(moved, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 4 < sum(flipped) < 28


def test_a_run_learns_and_leaves_what_a_search_needs(space, data, tmp_path):
    records: list[dict[str, float]] = []
    recipe = replace(RECIPE, epochs=6)

    train(space, *data, tmp_path / "run", recipe=recipe, on_epoch=records.append)

    assert records[-1]["accuracy_largest"] == 100.0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "supernet.safetensors", "images.zip", "log.jsonl", "checkpoint.safetensors", "checkpoint.previous.safetensors",
    }  # fmt: skip
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


class Killed(Exception):
    """Ends a run as a signal would that cannot be caught."""


def test_validation_images_are_decoded_once_a_run(space, data, tmp_path, monkeypatch):
    read, decoded = evaluate.load_images, []

    def noted(supernet, split, **where):
        decoded.append(split)
        return read(supernet, split, **where)

    monkeypatch.setattr(evaluate, "load_images", noted)

    train(space, *data, tmp_path, recipe=replace(RECIPE, epochs=3))

    assert sorted(decoded) == ["calibration", "validation"]


def killer(at: tuple[int, int]):
    def on_step(progress):
        if (progress.epoch, progress.step) == at:
            raise Killed

    return on_step


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(space, data, tmp_path_factory):
    """The weights of a run that nothing interrupted."""
    return train(space, *data, tmp_path_factory.mktemp("whole"), recipe=RECIPE)


@pytest.mark.parametrize("at", [(0, 2), (0, 5), (1, 1), (1, 4)])
@pytest.mark.parametrize("checkpoint_s", [0.0, 1e9], ids=["every step", "every epoch"])
def test_a_killed_run_goes_on_to_the_same_weights(space, data, whole, tmp_path, at, checkpoint_s):
    with pytest.raises(Killed):
        train(space, *data, tmp_path, recipe=RECIPE, checkpoint_s=checkpoint_s, on_step=killer(at))
    records: list[dict[str, float]] = []
    resumed = train(space, *data, tmp_path, recipe=RECIPE, on_epoch=records.append)

    assert same_weights(whole, resumed)
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 2


def test_a_stopped_run_saves_and_goes_on(space, data, whole, tmp_path):
    answers = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train(space, *data, tmp_path, recipe=RECIPE, stop=lambda: next(answers))
    steps: list[int] = []
    resumed = train(space, *data, tmp_path, recipe=RECIPE, on_step=lambda progress: steps.append(progress.step))

    assert steps[0] == 4
    assert same_weights(whole, resumed)


def test_the_losses_of_an_interrupted_epoch_are_those_of_the_whole(space, data, tmp_path):
    whole_log: list[dict[str, float]] = []
    train(space, *data, tmp_path / "a", recipe=RECIPE, on_epoch=whole_log.append)
    with pytest.raises(Killed):
        train(space, *data, tmp_path / "b", recipe=RECIPE, checkpoint_s=0.0, on_step=killer((0, 3)))
    log: list[dict[str, float]] = []
    train(space, *data, tmp_path / "b", recipe=RECIPE, on_epoch=log.append)

    assert [line["loss_largest"] for line in log] == [line["loss_largest"] for line in whole_log]


def test_a_truncated_checkpoint_falls_back_on_the_one_before(space, data, whole, tmp_path, caplog):
    with pytest.raises(Killed):
        train(space, *data, tmp_path, recipe=RECIPE, checkpoint_s=0.0, on_step=killer((1, 2)))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    resumed = train(space, *data, tmp_path, recipe=RECIPE)

    assert "going on from the checkpoint before it" in caplog.text
    assert same_weights(whole, resumed)


def test_a_run_of_other_settings_is_not_overwritten(space, data, tmp_path):
    train(space, *data, tmp_path / "run", recipe=replace(RECIPE, epochs=1))

    with pytest.raises(InputError, match="holds a run of other settings: seed was 0 and is 1"):
        train(space, *data, tmp_path / "run", recipe=replace(RECIPE, epochs=1, seed=1))


def test_a_run_starts_from_the_weights_of_another(space, data, whole, tmp_path):
    """At next to no learning rate, weights stay as they were given; for other classes, the classifier's are drawn."""
    files, source = data
    kept, still = load_supernet(str(whole)), replace(RECIPE, epochs=1, learning_rate_per_256=1e-30)
    given = load_file(whole)

    def changed(name: str, classes: tuple[str, ...]) -> set[str]:
        got = load_file(train(space, replace(files, classes=classes), source, tmp_path / name, recipe=still, init=kept))
        return {name for name in given if not torch.allclose(given[name], got[name], rtol=0.0, atol=1e-20)}

    assert changed("same", files.classes) == set()
    assert changed("others", ("day", "night")) == {"head.classifier.weight", "head.classifier.bias"}
    assert load_supernet(str(tmp_path / "same")).info.trained["init"] == kept.info.sha256


def test_a_run_goes_on_from_the_same_start_alone(space, data, whole, tmp_path):
    kept, recipe = load_supernet(str(whole)), replace(RECIPE, learning_rate_per_256=0.4)
    uninterrupted = train(space, *data, tmp_path / "a", recipe=recipe, init=kept)
    with pytest.raises(Killed):
        train(space, *data, tmp_path / "b", recipe=recipe, init=kept, checkpoint_s=0.0, on_step=killer((1, 1)))

    with pytest.raises(InputError, match=f"init was '{kept.info.sha256}' and is None"):
        train(space, *data, tmp_path / "b", recipe=recipe)
    assert same_weights(uninterrupted, train(space, *data, tmp_path / "b", recipe=recipe, init=kept))


def test_weights_of_another_space_are_no_start(folder, tmp_path, whole):
    command = ["train", "--space", "tiny", "--data", str(folder), "--out", str(tmp_path / "run")]
    command += ["--held-out", "8", "--calibration", "16", "--batch-size", "8"]

    shown = CliRunner().invoke(main, [*command, "--init", str(whole)])
    assert shown.exit_code == 2
    assert "a supernet of the space 'small', which is not the one to train ('tiny')" in shown.output
    shown = CliRunner().invoke(main, [*command, "--init", str(tmp_path / "none")])
    assert shown.exit_code == 2
    assert "no supernet at" in shown.output
    assert not (tmp_path / "run").exists()


def test_a_corrupt_checkpoint_is_refused(space, data, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"garbage")

    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        train(space, *data, tmp_path, recipe=RECIPE)


def test_a_loss_that_is_not_finite_stops_the_run(space, data, tmp_path):
    with pytest.raises(DivergedError, match="not finite at epoch 0"):
        train(
            space, *data, tmp_path, recipe=replace(RECIPE, learning_rate_per_256=1e30, warmup_epochs=0, clip_value=1e30)
        )


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(space, data, tmp_path, monkeypatch):
    saved = state.save_tensors
    calls = []

    def fills_up(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(*arguments, **options)

    monkeypatch.setattr(state, "save_tensors", fills_up)
    with pytest.raises(InputError, match="cannot write .*checkpoint.safetensors: No space left on device"):
        train(space, *data, tmp_path, recipe=RECIPE)
    done = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["epoch"]
    assert done == 1

    train(space, *data, tmp_path, recipe=RECIPE)
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["epoch"] == RECIPE.epochs


def test_a_predictor_needs_candidates_to_score(folder, tmp_path):
    arguments = [
        "train",
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "run"),
        "--held-out",
        "8",
        "--calibration",
        "8",
    ]
    result = CliRunner().invoke(main, [*arguments, "--predictor", str(tmp_path / "p.safetensors")])
    assert result.exit_code == 2
    assert "--predictor scores candidates, but the recipe draws at random" in result.stderr


def test_held_out_images_are_not_trained_on(files):
    training = {file.path for file in files.training}

    assert len(training) == 40
    assert len(files.validation) == 8
    assert not training & {file.path for file in files.validation}
    assert {file.path for file in files.calibration} <= training


def test_too_few_images_are_refused(folder):
    with pytest.raises(DataError, match="too few to set 40 apart"):
        list_files(folder, held_out=40, calibration=8, seed=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 1), ("learning_rate_per_256", 0.0), ("dropout", 1.0), ("beta", 1.5)],
)
def test_a_recipe_out_of_range_is_refused(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}"):
        Recipe(**{field: value})


def test_the_command_trains_and_evaluates_on_a_space_of_ones_own(space, folder, tmp_path):
    (tmp_path / "my_space.json").write_text(json.dumps(space.to_dict()))
    arguments = ["--space", str(tmp_path / "my_space.json"), "--data", str(folder), "--out", str(tmp_path / "run")]
    arguments += ["--epochs", "1", "--batch-size", "8", "--held-out", "8", "--calibration", "16", "--json"]

    trained = CliRunner().invoke(main, ["train", *arguments])
    evaluated = CliRunner().invoke(main, ["evaluate", "--supernet", str(tmp_path / "run"), "--random", "2", "--json"])

    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["epochs"][0]["epoch"] == 1
    assert (tmp_path / "run" / "train.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads(evaluated.stdout)
    assert [row["name"] for row in result["subnets"]] == ["smallest", "largest", "random 0", "random 1"]
    assert result["images"]["count"] == 8


def test_the_command_says_what_is_wrong_with_its_data(tmp_path):
    result = CliRunner().invoke(main, ["train", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")])

    assert result.exit_code == 2
    assert "it does not exist" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_space_of_one_member_trains_it_alone_and_on_the_labels(space):
    """The gradients of a plain network of these weights."""
    subnet = space.decode(space.sample(1, np.random.default_rng(3)))[0]
    alone = space.only(subnet)
    assert (alone.size, alone.smallest(), alone.largest()) == (1, subnet, subnet)
    torch.manual_seed(0)
    model = Supernet(alone).train()
    for name, parameter in model.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.ones_(parameter)
    images, labels = torch.randn(8, 3, 12, 12), torch.arange(8) % 7
    recipe = replace(RECIPE, drop_connect=0.0, label_smoothing=0.0)
    losses = add_gradients(model, images, labels, strategy=make_strategy(model, recipe), rng=np.random.default_rng(0))
    found = model.head["classifier"].weight.grad.clone()
    model.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(images, subnet), labels)
    torch.autograd.backward(loss)
    assert losses.largest == losses.smallest == pytest.approx(loss.item(), abs=1e-6)
    assert math.isnan(losses.random)
    torch.testing.assert_close(found, model.head["classifier"].weight.grad)


def test_one_sub_network_trains_alone_from_the_command_line(folder, tmp_path):
    out = tmp_path / "alone"
    shown = CliRunner().invoke(
        main,
        ["train", "--space", "tiny", "--subnet", "smallest", "--data", str(folder), "--out", str(out)]
        + ["--epochs", "1", "--batch-size", "8", "--held-out", "8", "--calibration", "16", "--threads", "1"],
    )
    assert shown.exit_code == 0, shown.output
    (line,) = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    assert line["loss_random"] is None  # a step trains none; "NaN" would not be JSON
    assert line["accuracy_smallest"] == line["accuracy_largest"]
    assert f"next: nas2edge evaluate --supernet {out}" in shown.output
    shown = CliRunner().invoke(main, ["evaluate", "--supernet", str(out), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)["subnets"]
    assert {row["accuracy"] for row in found} == {line["accuracy_smallest"]}


@pytest.mark.parametrize("option", ["--init", "--teacher", "--predictor"])
def test_what_trains_alone_has_no_teacher(option, folder, tmp_path):
    command = ["train", "--subnet", "smallest", option, "x.onnx", "--data", str(folder), "--out", str(tmp_path / "run")]
    shown = CliRunner().invoke(main, command)
    assert shown.exit_code == 2
    assert f"leave {option} out" in shown.output


def test_curves_for_tensorboard_go_on_after_an_interruption(tmp_path):
    """Read back by TensorBoard itself: what the first wrote after step 20 is written anew."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    losses = StepLosses(largest=2.0, random=math.nan, smallest=3.0)

    def step(board: Board, number: int) -> None:
        board.update(Progress(epoch=0, step=number, steps=100, images_per_second=50.0, losses=losses))

    with Board(out) as board:
        for number in (20, 40, 60):
            step(board, number)
    with Board(out) as board:
        for number in (40, 41, 60):
            step(board, number)
        board.epoch({"accuracy_largest": 80.0, "accuracy_smallest": 70.0})
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/largest")] == [(20, 2.0), (40, 2.0), (60, 2.0)]
    assert [(event.step, event.value) for event in events.Scalars("accuracy/smallest")] == [(60, 70.0)]
    assert "loss/random" not in events.Tags()["scalars"]


def test_mixed_precision_learns_alike_and_keeps_weights_in_float32(space):
    """The gradients of a step in bfloat16, which has three digits, are near those in float32."""
    images, labels = torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 7

    def step(precision):
        torch.manual_seed(0)
        model = Supernet(space).train().to(memory_format=torch.channels_last)
        for name, parameter in model.named_parameters():
            if name.endswith("bn.weight"):
                torch.nn.init.ones_(parameter)
        strategy = make_strategy(model, replace(RECIPE, precision=precision, drop_connect=0.0))
        losses = add_gradients(model, images, labels, strategy=strategy, rng=np.random.default_rng(0))
        return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    (exact, expected), (mixed, found) = step("float32"), step("bfloat16")
    assert 0.0 < abs(mixed.largest - exact.largest) < 0.05 * exact.largest
    assert found.keys() == expected.keys()
    assert {grad.dtype for grad in found.values()} == {torch.float32}
    ours, theirs = (torch.cat([grads[name].flatten() for name in expected]) for grads in (found, expected))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.98
