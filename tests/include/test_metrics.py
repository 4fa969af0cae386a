from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as known

from airworthy.errors import TrainError
from airworthy.evidence import METRICS, Metric
from airworthy.metrics import resample, score, score_all

ROWS, BLOCKS = 600, 9


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def binary(rng: np.random.Generator, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    label = rng.integers(0, 2, rows)
    return label, np.clip(np.round(rng.normal(0.4 + 0.2 * label, 0.2), 2), 0.01, 0.99)  # rounded: many ties


def multiclass(rng: np.random.Generator, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 3, rows), rng.dirichlet([2, 3, 4], rows)


def regression(rng: np.random.Generator, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    label = rng.normal(1000, 2, rows)
    return label, label + rng.normal(0, 1, rows)


def test_binary_metrics_are_scikit_learns(rng: np.random.Generator) -> None:
    label, prediction = binary(rng)
    assert score_all("binary", label, prediction) == pytest.approx(
        {
            "roc_auc": known.roc_auc_score(label, prediction),
            "average_precision": known.average_precision_score(label, prediction),
            "log_loss": known.log_loss(label, prediction),
            "accuracy": known.accuracy_score(label, prediction >= 0.5),
        }
    )


def test_multiclass_metrics_are_scikit_learns(rng: np.random.Generator) -> None:
    label, prediction = multiclass(rng)
    assert score_all("multiclass", label, prediction) == pytest.approx(
        {
            "log_loss": known.log_loss(label, prediction),
            "accuracy": known.accuracy_score(label, prediction.argmax(axis=1)),
        }
    )


def test_regression_metrics_are_scikit_learns(rng: np.random.Generator) -> None:
    label, prediction = regression(rng)
    assert score_all("regression", label, prediction) == pytest.approx(
        {
            "rmse": known.root_mean_squared_error(label, prediction),
            "mae": known.mean_absolute_error(label, prediction),
            "r2": known.r2_score(label, prediction),
        }
    )


def test_a_sure_and_wrong_prediction_costs_a_finite_log_loss() -> None:
    assert np.isfinite(score("binary", "log_loss", np.array([0, 1]), np.array([1.0, 0.0])))


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_one_class_is_named(metric: Metric) -> None:
    with pytest.raises(TrainError, match=f"{metric}: is not defined on one class.*only negative labels"):
        score("binary", metric, np.zeros(5), np.linspace(0, 1, 5))


def test_no_rows_are_named() -> None:
    with pytest.raises(TrainError, match="rmse: must be measured on rows"):
        score("regression", "rmse", np.array([]), np.array([]))


@pytest.mark.parametrize(
    ("task", "make", "metric"),
    [
        (task, make, metric)
        for task, make in (("binary", binary), ("multiclass", multiclass), ("regression", regression))
        for metric in METRICS[task]
    ],
)
def test_a_resample_scores_as_if_its_rows_were_copied(task, make, metric, rng: np.random.Generator) -> None:
    label, prediction = make(rng)
    block = rng.integers(0, BLOCKS, ROWS)
    counts = rng.multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), size=5)
    found = resample(metric, label, prediction, block, counts)
    for drawn, value in zip(counts, found, strict=True):
        rows = np.repeat(np.arange(ROWS), drawn[block])
        assert value == pytest.approx(score(task, metric, label[rows], prediction[rows]), rel=1e-9)


def test_a_resample_without_a_positive_label_has_no_roc_auc() -> None:
    label, prediction, block = np.array([1, 0, 0, 0]), np.array([0.9, 0.1, 0.2, 0.3]), np.array([0, 0, 1, 1])
    found = resample("roc_auc", label, prediction, block, np.array([[1, 1], [0, 2]]))
    assert found[0] == 1.0
    assert np.isnan(found[1])
