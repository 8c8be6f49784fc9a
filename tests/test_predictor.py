"""Accuracy predictors: what they learn, that they come back from disk as they were, and for whom they serve."""

import numpy as np
import pytest

from nas2edge.additive import AdditiveMetric
from nas2edge.costs import count_macs
from nas2edge.errors import FormatError, InputError
from nas2edge.search.cache import EVALUATED_NAME, digest_of_images, read_accuracies
from nas2edge.search.predictor import PREDICTOR_NAME, Process, Ridge, load_predictor, quadratic, save_predictor
from nas2edge.search.predictor_fit import available_kinds, draw_samples, fit_predictor, fit_ridge, refit_predictor
from nas2edge.search.process_fit import _gradient, fit_process
from nas2edge.search.refine import refine
from nas2edge.space import Codes, SearchSpace, StageSpace, SubnetConfig
from nas2edge.spaces import load_space
from nas2edge.stats import kendall_tau
from nas2edge.supernet.weights_file import supernet_info

SPACE = load_space("tiny")
SHA = "ab" * 32


def accuracy(codes: Codes) -> np.ndarray:
    """A smooth accuracy: rising in MACs, with a pair of choices that go together, and some noise."""
    macs = AdditiveMetric(SPACE, count_macs)(codes)
    noise = np.random.default_rng(int(codes.sum())).normal(0, 0.1, len(codes))
    return 60 + 12 * np.log(macs / 1e6) / np.log(10) + 0.8 * codes[:, 3] * codes[:, 9] + noise


@pytest.fixture(scope="module")
def codes() -> Codes:
    return draw_samples(SPACE, 300, seed=0)


@pytest.fixture(scope="module")
def predictor(codes):
    return fit_predictor(SPACE, codes, accuracy(codes), supernet_sha256=SHA, images=2000)


def test_samples_are_different_and_have_both_ends(codes):
    assert len(np.unique(codes, axis=0)) == len(codes) == 300
    assert SPACE.decode(codes[:2]) == [SPACE.smallest(), SPACE.largest()]


def test_samples_of_a_small_space_are_no_more_than_it_has():
    stage = StageSpace(width=(8,), depth=(1, 2), kernel_size=(3,), expand_ratio=(2,), stride=1, se=False)
    space = SearchSpace(
        name="few", image_size=8, resolution=(8, 16), num_classes=2, stem_width=(8, 16), stages=(stage,),
        head_width=(16,), head_expand_ratio=2,
    )  # fmt: skip

    assert len(draw_samples(space, 100, seed=0)) == space.size == 8


@pytest.mark.parametrize("kind", list(available_kinds()))
def test_every_kind_ranks_networks_that_it_has_not_seen(codes, kind):
    fitted = fit_predictor(
        SPACE, codes, accuracy(codes), supernet_sha256=SHA, images=2000, kinds={kind: available_kinds()[kind]}
    )
    unseen = SPACE.sample(300, np.random.default_rng(9))

    predicted, sigma = fitted.predict(unseen)

    assert kendall_tau(predicted, accuracy(unseen)) > 0.8
    errors = np.abs(predicted - accuracy(unseen)) / sigma
    assert 0.45 < float((errors < 1).mean()) < 0.98


@pytest.mark.parametrize("kind", list(available_kinds()))
def test_numpy_predicts_what_was_fitted_and_stored(codes, tmp_path, kind):
    fitted = fit_predictor(
        SPACE, codes, accuracy(codes), supernet_sha256=SHA, images=2000, kinds={kind: available_kinds()[kind]}
    )
    save_predictor(tmp_path / "p.safetensors", fitted)
    again = load_predictor(tmp_path / "p.safetensors", space=SPACE, supernet_sha256=SHA)

    np.testing.assert_array_equal(again(codes), fitted(codes))
    assert again.scores == fitted.scores


def test_boosted_trees_in_numpy_agree_with_scikit_learn(codes):
    sklearn = pytest.importorskip("sklearn.ensemble")
    from nas2edge.search.predictor import Features
    from nas2edge.search.predictor_fit import fit_boosting

    features, target = Features(SPACE)(codes), accuracy(codes)
    ours = fit_boosting(features, target, 3).predict(features)
    theirs = sklearn.GradientBoostingRegressor(
        n_estimators=400, max_depth=3, learning_rate=0.05, subsample=0.7, random_state=3
    ).fit(features, target)

    np.testing.assert_allclose(ours, theirs.predict(features), rtol=1e-9)


def test_ridge_finds_a_quadratic_by_hand():
    """y = 2 + 3 a - b + 4 a b is in its span."""
    features = np.random.default_rng(0).random((200, 2))
    a, b = features.T

    fitted = fit_ridge(features, 2 + 3 * a - b + 4 * a * b, 0)

    np.testing.assert_allclose(fitted.predict(features), 2 + 3 * a - b + 4 * a * b, atol=0.02)


def test_quadratic_features_by_hand():
    assert quadratic(np.array([[2.0, 3.0]])).tolist() == [[1, 2, 3, 4, 6, 9]]


def test_the_kind_with_the_least_error_is_kept(predictor):
    assert predictor.kind == min(predictor.scores, key=lambda kind: predictor.scores[kind].rmse)


def test_too_few_samples_are_refused(codes):
    with pytest.raises(InputError, match="20 evaluated sub-networks are too few"):
        fit_predictor(SPACE, codes[:20], accuracy(codes[:20]), supernet_sha256=SHA, images=2000)


def test_a_predictor_of_other_weights_is_refused(predictor, tmp_path):
    save_predictor(tmp_path / "p.safetensors", predictor)

    with pytest.raises(InputError, match="was fitted for other weights"):
        load_predictor(tmp_path / "p.safetensors", space=SPACE, supernet_sha256="cd" * 32)


def test_a_predictor_of_another_space_is_refused(predictor, tmp_path):
    save_predictor(tmp_path / "p.safetensors", predictor)

    with pytest.raises(InputError, match="was fitted for another space than 'attentivenas'"):
        load_predictor(tmp_path / "p.safetensors", space=load_space("attentivenas"), supernet_sha256=SHA)


def test_a_corrupt_predictor_is_told(tmp_path):
    (tmp_path / "p.safetensors").write_bytes(b"garbage")

    with pytest.raises(FormatError, match="is not a readable safetensors file"):
        load_predictor(tmp_path / "p.safetensors", space=SPACE, supernet_sha256=SHA)


def test_the_embedded_predictor_is_of_the_embedded_weights_and_images():
    info = supernet_info("builtin:tiny")
    predictor = load_predictor(info.path.with_name(PREDICTOR_NAME), space=info.space, supernet_sha256=info.sha256)
    known = read_accuracies(
        info.path.with_name(EVALUATED_NAME), supernet_sha256=info.sha256, data=digest_of_images(None, info.images)
    )

    assert predictor.data == digest_of_images(None, info.images)
    assert predictor.samples == len(known) >= 500
    assert set(predictor.scores) == {"ridge", "gp", "boosting", "mlp"}
    assert predictor.scores[predictor.kind].kendall_tau > 0.8
    predicted, errors = predictor.predict(info.space.encode(known))
    assert kendall_tau(predicted, list(known.values())) > 0.8
    assert (np.abs(predicted - list(known.values())) < 4 * errors).all()


def test_a_gaussian_process_by_hand():
    """One sample at 0, signal and noise of 1 and 0.25: the mean at x is exp(-x^2 / 2) / 1.25 of the sample."""
    process = Process(np.zeros((1, 1)), np.array([2.0]), np.array([3.0 / 1.25]), np.array([70.0, 1.0, 0.25, 1.0]))
    between = np.exp(-0.5)  # at 2, one length scale away

    np.testing.assert_allclose(process.predict(np.array([[0.0], [2.0]])), [72.4, 70 + 2.4 * between])
    np.testing.assert_allclose(
        process.errors(np.array([[0.0], [2.0]])) ** 2, [1.25 - 1 / 1.25, 1.25 - between**2 / 1.25]
    )


def test_length_scales_tell_what_matters():
    features = np.random.default_rng(0).random((120, 3))

    process = fit_process(features, 5 * np.sin(6 * features[:, 0]) + features[:, 1], 0)

    first, second, third = process.scales
    assert first < 1 < min(second, third)


def test_the_gradient_of_the_marginal_likelihood_is_that_of_finite_differences():
    rng = np.random.default_rng(1)
    features, target = rng.random((30, 2)), rng.normal(size=30)
    at = np.array([0.3, -0.4, 0.2, -1.0])

    def log_posterior(at: np.ndarray) -> float:
        inputs = features / np.exp(at[:2])
        squared = ((inputs[:, None] - inputs[None]) ** 2).sum(axis=2)
        kernel = np.exp(at[2]) * np.exp(-squared / 2) + np.exp(at[3]) * np.eye(30)
        likelihood = -0.5 * target @ np.linalg.solve(kernel, target) - 0.5 * np.linalg.slogdet(kernel)[1]
        centres, widths = [np.log(2)] * 2 + [np.log(3), np.log(0.03)], np.array([3.0, 3.0, 2.0, 1.5])
        return float(likelihood - 0.5 * (((at - centres) / widths) ** 2).sum())

    steps = 1e-5 * np.eye(4)
    slopes = [(log_posterior(at + step) - log_posterior(at - step)) / 2e-5 for step in steps]

    np.testing.assert_allclose(_gradient(at, features, target), slopes, rtol=1e-5)


def test_a_predictor_is_fitted_anew_to_more_samples(codes):
    few = fit_predictor(
        SPACE, codes[:100], accuracy(codes[:100]), supernet_sha256=SHA, images=9, kinds={"gp": fit_process}
    )

    more = refit_predictor(few, codes, accuracy(codes))

    assert (more.samples, more.kind, more.images) == (300, "gp", 9)
    assert more.rmse < few.rmse
    np.testing.assert_array_equal(more.models[0].scales, few.models[0].scales)


def test_refinement_evaluates_near_the_front_until_it_stands_still(codes):
    asked: list[SubnetConfig] = []

    def evaluate(subnets):
        asked.extend(subnets)
        return accuracy(SPACE.encode(subnets)).tolist()

    def fit(known):
        return fit_predictor(
            SPACE, SPACE.encode(known), list(known.values()), supernet_sha256=SHA, images=9, kinds={"ridge": fit_ridge}
        )

    known = dict(zip(SPACE.decode(codes[:80]), accuracy(codes[:80]).tolist(), strict=True))
    refined = refine(SPACE, known, evaluate=evaluate, fit=fit, latency={}, budget=60, seed=0)

    assert len(set(asked)) == len(asked) == len(refined.known) - 80
    assert len(asked) == 60 or refined.still
    assert not set(asked) & set(known)
    macs = AdditiveMetric(SPACE, count_macs)
    random = SPACE.sample(200, np.random.default_rng(3))
    above_trend = np.polyfit(np.log(macs(random)), accuracy(random), 2)
    lift = accuracy(SPACE.encode(asked)) - np.polyval(above_trend, np.log(macs(SPACE.encode(asked))))
    assert lift.mean() > 0.1  # random ones: 0


def test_a_model_has_a_kind_and_arrays():
    assert Ridge(np.zeros(3)).kind == "ridge"
    assert list(Ridge(np.zeros(3)).arrays()) == ["weights"]
