"""nas2edge search by a predictor: which source is taken, what is evaluated, what is said of it, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nas2edge import SubnetConfig, load_space
from nas2edge.cli import main
from nas2edge.search.cache import CachedEvaluator, digest_of_images
from nas2edge.search.predictor import save_predictor
from nas2edge.search.predictor_fit import fit_predictor, fit_ridge
from nas2edge.subnet_file import read_subnet

SPACE = load_space("tiny")
SHA = "ab" * 32


def _accuracy(subnet: SubnetConfig) -> float:
    return 60.0 + float(np.sqrt(SPACE.encode([subnet])).sum())


class _Evaluator:
    """A made-up supernet: remembers what it was asked."""

    tested = 2000

    def __init__(self) -> None:
        self.asked: list[SubnetConfig] = []

    def __call__(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        self.asked += subnets
        return [_accuracy(subnet) for subnet in subnets]

    each = __call__


@pytest.fixture
def run_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run with weights, images, 80 evaluated sub-networks and a predictor; the working folder is another."""
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (folder / "images.zip").write_bytes(b"images")
    data = digest_of_images(None, folder / "images.zip")
    subnets = SPACE.decode(SPACE.sample(80, np.random.default_rng(1)))
    accuracies = CachedEvaluator(_Evaluator(), folder / "evaluated.jsonl", supernet_sha256=SHA, data=data)(subnets)
    predictor = fit_predictor(
        SPACE,
        SPACE.encode(subnets),
        accuracies,
        supernet_sha256=SHA,
        images=2000,
        data=data,
        kinds={"ridge": fit_ridge},
    )
    save_predictor(folder / "predictor.safetensors", predictor)
    return folder


@pytest.fixture
def evaluator(monkeypatch: pytest.MonkeyPatch, run_folder: Path) -> _Evaluator:
    """Puts a made-up supernet in place of torch."""
    evaluator = _Evaluator()
    info = SimpleNamespace(
        space=SPACE,
        sha256=SHA,
        images=run_folder / "images.zip",
        source="run",
        path=run_folder / "supernet.safetensors",
    )
    checkpoint, evaluate = ModuleType("checkpoint"), ModuleType("evaluate")
    checkpoint.load_supernet = lambda source: SimpleNamespace(info=info)  # type: ignore[attr-defined]
    evaluate.make_evaluator = lambda loaded, data=None, split=None: evaluator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nas2edge.supernet.checkpoint", checkpoint)
    monkeypatch.setitem(sys.modules, "nas2edge.supernet.evaluate", evaluate)
    monkeypatch.setattr("nas2edge.supernet.weights_file.supernet_info", lambda source: info)
    monkeypatch.setattr("nas2edge.optional.require", lambda *modules, **_: None)
    return evaluator


def _run(*args: str) -> Result:
    return CliRunner().invoke(main, ["search", "--macs", "4M", "--evaluations", "1500", *args], catch_exceptions=False)


def test_a_predictor_beside_the_weights_is_the_default(evaluator: _Evaluator) -> None:
    result = _run("--reevaluate", "0")

    assert result.exit_code == 0, result.output
    assert evaluator.asked == []
    assert "note: accuracies are predictions" not in result.stderr, "asked for"
    pareto, file = json.loads(Path("pareto.json").read_text()), read_subnet(Path("subnet.json"))
    assert pareto["accuracy"]["source"] == file.predicted["accuracy_source"] == "predictor"
    assert pareto["accuracy"]["images"] == 2000
    assert pareto["search"]["algorithm"] == "nsga2"
    assert all(point["accuracy_sigma"] > 0 for point in pareto["points"])
    assert file.predicted["accuracy_error"] == pareto["accuracy"]["error"]
    assert "from predictor (ridge regression on 80 sub-networks that the supernet evaluated" in result.stdout


def test_what_was_evaluated_stands_beside_its_prediction(evaluator: _Evaluator, run_folder: Path) -> None:
    _run("--reevaluate", "0")
    best = read_subnet(Path("subnet.json")).subnet
    cached = CachedEvaluator(
        evaluator,
        run_folder / "evaluated.jsonl",
        supernet_sha256=SHA,
        data=digest_of_images(None, run_folder / "images.zip"),
    )
    cached([best])

    result = _run("--reevaluate", "0")

    points = {point["id"]: point for point in json.loads(Path("pareto.json").read_text())["points"]}
    assert read_subnet(Path("subnet.json")).subnet == best
    assert points[best.id]["measured_accuracy"] == pytest.approx(_accuracy(best))
    assert read_subnet(Path("subnet.json")).predicted["measured_accuracy"] == pytest.approx(_accuracy(best))
    assert "evaluated: " in result.stdout
    assert "by the supernet on 2000 validation images" in result.stdout


def test_the_chosen_one_is_evaluated_by_default(evaluator: _Evaluator) -> None:
    result = _run()

    assert result.exit_code == 0, result.output
    assert 1 <= len(evaluator.asked) <= 5
    chosen = read_subnet(Path("subnet.json"))
    assert chosen.subnet in evaluator.asked
    assert chosen.predicted["measured_accuracy"] == pytest.approx(_accuracy(chosen.subnet))
    assert "evaluating 1 of the best on 2000 images each" in result.stderr
    assert "note:" not in result.stderr


def test_what_the_cache_knows_opens_no_supernet(evaluator: _Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _run()
    monkeypatch.setattr("nas2edge.optional.require", lambda *_, **__: pytest.fail("torch was asked for"))

    again = _run()

    assert first.exit_code == again.exit_code == 0, again.output
    assert "measured_accuracy" in read_subnet(Path("subnet.json")).predicted


def _without_torch(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("nas2edge.optional.is_installed", lambda module: module != "torch")


def _with_other_images(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "images.zip").write_bytes(b"others")


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        (_without_torch, [], "evaluating the chosen sub-network takes torch: pip install 'nas2edge[export]'"),
        (_with_other_images, [], "the images that the predictor was fitted to are not at hand (those beside "),
        (None, ["--resume", "s.npz"], "a search with --resume evaluates nothing; nas2edge evaluate --subnet does"),
    ],
)
def test_what_cannot_be_evaluated_is_said_to_be_predicted(
    evaluator: _Evaluator,
    monkeypatch: pytest.MonkeyPatch,
    run_folder: Path,
    change: Callable[[pytest.MonkeyPatch, Path], None] | None,
    args: list[str],
    message: str,
) -> None:
    if change:
        change(monkeypatch, run_folder)

    result = _run(*args)

    assert result.exit_code == 0, result.output
    assert evaluator.asked == []
    assert f"note: accuracies are predictions: {message}" in result.stderr
    assert "measured_accuracy" not in read_subnet(Path("subnet.json")).predicted


def test_the_best_are_evaluated_until_they_stand(evaluator: _Evaluator) -> None:
    result = _run("--reevaluate", "4")

    assert result.exit_code == 0, result.output
    assert 4 <= len(evaluator.asked) <= 5 * 4
    assert len(set(evaluator.asked)) == len(evaluator.asked)
    pareto = json.loads(Path("pareto.json").read_text())
    (chosen,) = (point for point in pareto["points"] if point["id"] == pareto["best"])
    assert chosen["measured_accuracy"] == pytest.approx(_accuracy(read_subnet(Path("subnet.json")).subnet))
    assert "evaluating 4 of the best on 2000 images each" in result.stderr
    assert f"ridge regression on {80 + len(evaluator.asked)} sub-networks" in pareto["accuracy"]["note"], pareto[
        "accuracy"
    ]["note"]

    asked = len(evaluator.asked)
    _run("--reevaluate", "4", "--front", "again.json")

    assert len(evaluator.asked) == asked, "accuracies.jsonl has them"
    assert json.loads(Path("again.json").read_text()) == pareto


def test_the_supernet_itself_can_be_asked_for(evaluator: _Evaluator) -> None:
    result = _run("--accuracy", "supernet", "--evaluations", "30", "--population", "8")

    assert result.exit_code == 0, result.output
    assert 0 < len(evaluator.asked) <= 30
    assert read_subnet(Path("subnet.json")).predicted["accuracy_source"] == "supernet"
    assert "80 of this supernet are known already" in result.stderr


def test_images_of_ones_own_are_a_matter_of_the_supernet(evaluator: _Evaluator) -> None:
    Path("mine.zip").write_bytes(b"mine")

    _run("--data", "mine.zip", "--evaluations", "20", "--population", "8")

    assert read_subnet(Path("subnet.json")).predicted["accuracy_source"] == "supernet"
    refused = _run("--data", "mine.zip", "--accuracy", "predictor")
    assert refused.exit_code == 2
    assert "was fitted to accuracies on other images than the images in mine.zip" in refused.stderr


def test_a_predictor_of_another_supernet_is_refused(evaluator: _Evaluator, run_folder: Path) -> None:
    codes = SPACE.sample(60, np.random.default_rng(0))
    other = fit_predictor(
        SPACE, codes, codes.sum(axis=1), supernet_sha256="cd" * 32, images=9, kinds={"ridge": fit_ridge}
    )
    save_predictor(run_folder / "predictor.safetensors", other)

    result = _run()

    assert result.exit_code == 2
    assert "was fitted for other weights (sha256 cdcdcdcdcdcd..., expected abababababab...)" in result.stderr
    assert not Path("subnet.json").exists()


def _without_predictor(folder: Path) -> None:
    (folder / "predictor.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        (_without_predictor, ["--accuracy", "predictor"], "there is no predictor beside "),
        (_without_predictor, ["--reevaluate", "4"], "here the supernet evaluates all"),
        (None, ["--accuracy", "supernet", "--reevaluate", "4"], "here the supernet evaluates all"),
        (None, ["--space", "attentivenas", "--reevaluate", "4"], "--reevaluate needs weights"),
        (None, ["--space", "attentivenas", "--accuracy", "predictor"], "--accuracy predictor needs weights"),
        (None, ["--resume", "s.npz", "--reevaluate", "4"], "leave one out"),
    ],
)
def test_contradictions_are_refused(
    evaluator: _Evaluator,
    run_folder: Path,
    change: Callable[[Path], None] | None,
    args: list[str],
    message: str,
) -> None:
    if change:
        change(run_folder)

    result = _run(*args)

    assert result.exit_code == 2
    assert message in result.stderr
    assert evaluator.asked == []


@pytest.mark.parametrize("algorithm", ["exact", "aging"])
def test_other_algorithms_search_by_a_predictor(evaluator: _Evaluator, algorithm: str) -> None:
    result = _run("--algorithm", algorithm)

    assert result.exit_code == 0, result.output
    assert read_subnet(Path("subnet.json")).predicted["macs"] <= 4e6


def test_the_page_has_every_choice_and_what_lies_behind_the_front(evaluator: _Evaluator) -> None:
    result = CliRunner().invoke(
        main,
        ["search", "--device", "jetson", "--latency", "1.5ms,1.2ms", "--evaluations", "3000", "--report", "r.html"],
        catch_exceptions=False,
    )

    assert result.exit_code == 0, result.output
    page = Path("r.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [choice["file"] for choice in data["choices"]] == ["subnet-1.5ms.json", "subnet-1.2ms.json"]
    assert data["axes"][0]["limits"] == [[1.2, "1.2 ms"], [1.5, "1.5 ms"]]
    assert len(data["dominated"]["accuracy"]) > 500
    assert all(60 < accuracy < 90 for accuracy in data["dominated"]["accuracy"])
    assert data["dominated"]["total"] < 3000
    assert data["convergence"]["hypervolume"][-1] > 0
    assert "r.html" in result.stdout


def test_the_page_must_not_be_another_file(evaluator: _Evaluator) -> None:
    result = _run("--report", "pareto.json")

    assert result.exit_code == 2
    assert "--front and --report are both pareto.json" in result.stderr
    assert _run("--report", "nowhere/r.html").exit_code == 2


def test_the_default_command_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from nas2edge.cli import main\n"
        "main(['search', '--device', 'jetson', '--latency', '20ms'], standalone_mode=False)\n"
        "loaded = {'torch', 'sklearn', 'onnx', 'onnxruntime', 'scipy', 'PIL'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "from predictor (" in done.stdout
    assert "evaluated: " in done.stdout, "the choice is one of those that the predictor was fitted to"
    assert json.loads((tmp_path / "pareto.json").read_text())["supernet"]["source"] == "builtin:tiny"


def test_a_fit_draws_refines_and_goes_on_from_its_lines(evaluator: _Evaluator, run_folder: Path) -> None:
    args = ["predictor", "fit", "--supernet", "run", "--samples", "70", "--refine", "10", "--out", ".", "--json"]
    first = CliRunner().invoke(main, args, catch_exceptions=False)

    assert first.exit_code == 0, first.output
    printed = json.loads(first.stdout)
    assert 60 < printed["samples"] == len(evaluator.asked) <= 70
    assert len(Path("evaluated.jsonl").read_text().splitlines()) == printed["samples"]
    assert printed["kind"] == min(printed["scores"], key=lambda kind: printed["scores"][kind]["rmse"])
    assert "near the front; by rounds, it moved by" in first.stderr

    again = CliRunner().invoke(main, args, catch_exceptions=False)

    assert json.loads(again.stdout) == printed
    assert len(evaluator.asked) == printed["samples"]


def test_a_fit_keeps_enough_to_draw_over_the_space(evaluator: _Evaluator) -> None:
    result = CliRunner().invoke(main, ["predictor", "fit", "--supernet", "run", "--samples", "60", "--refine", "20"])

    assert result.exit_code == 2
    assert "--refine 20 of --samples 60 leaves 40 drawn over the space; expected at least 50" in result.stderr
