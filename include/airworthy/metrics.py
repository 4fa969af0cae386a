"""The metrics gates and tuning speak of, on whole holdouts and on resampled ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airworthy.errors import TrainError
from airworthy.evidence import METRICS, Metric, Task

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 4_000_000  # weights held at once while resampling, about 32 MB


def score(task: Task, metric: Metric, label: np.ndarray, prediction: np.ndarray) -> float:
    """Returns one metric.

    Args:
        task: What the label is predicted as.
        metric: One of `METRICS[task]`.
        label: Shape (n,): 0/1, class index, or a number.
        prediction: Shape (n,) for binary and regression, (n, classes) for multiclass.

    Raises:
        TrainError: There are no rows, or the metric needs two classes and there is one.
    """
    _ensure_defined(metric, label)
    import numpy as np
    from sklearn import metrics as known

    hard = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction >= 0.5
    match metric:
        case "roc_auc":
            return float(known.roc_auc_score(label, prediction))
        case "average_precision":
            return float(known.average_precision_score(label, prediction))
        case "accuracy":
            return float(np.mean(hard == label))
        case "r2":
            return float(known.r2_score(label, prediction))
        case _:
            lost = losses(metric, label, prediction).mean()
            return float(np.sqrt(lost) if metric == "rmse" else lost)


def score_all(task: Task, label: np.ndarray, prediction: np.ndarray) -> dict[Metric, float]:
    """Returns every metric of the task.

    Raises:
        TrainError: There are no rows, or a metric needs two classes and there is one.
    """
    return {metric: score(task, metric, label, prediction) for metric in METRICS[task]}


def score_or_nan(task: Task, metric: Metric, label: np.ndarray, prediction: np.ndarray) -> float:
    """Returns one metric; NaN where the labels do not define it, as in a short month with one class only."""
    try:
        return score(task, metric, label, prediction)
    except TrainError:
        return float("nan")


def resample(
    metric: Metric, label: np.ndarray, prediction: np.ndarray, block: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Returns the metric on each resample of whole blocks, shape (resamples,); NaN where it is not defined.

    A resample takes every row of block b `counts[r, b]` times. All metrics but average precision are
    functions of sums over blocks (roc_auc: over pairs of blocks, as it counts pairs of rows), so the
    rows are looked at once, however many resamples there are.

    Args:
        metric: The metric.
        label: Shape (n,).
        prediction: Shape (n,) or (n, classes).
        block: Shape (n,): each row's block, in 0 ... blocks - 1.
        counts: Shape (resamples, blocks): how often each resample took each block.
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        match metric:
            case "roc_auc":
                return _resample_roc_auc(label, prediction, block, counts)
            case "average_precision":
                return _resample_average_precision(label, prediction, block, counts)
            case "r2":
                centred = label - label.mean()  # the sums of squares below lose their digits far from zero
                rows, sums, squares, lost = (
                    counts @ _per_block(values, block, counts)
                    for values in (None, centred, centred**2, (label - prediction) ** 2)
                )
                return np.asarray(1 - lost / (squares - sums**2 / rows))
            case _:
                lost = counts @ _per_block(losses(metric, label, prediction), block, counts)
                mean = lost / (counts @ _per_block(None, block, counts))
                return np.asarray(np.sqrt(mean) if metric == "rmse" else mean)


def losses(metric: Metric, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Returns each row's part of a metric that is a mean over rows (rmse: before the root); of others, of log loss."""
    import numpy as np

    match metric:
        case "rmse":
            return np.asarray((label - prediction) ** 2)
        case "mae":
            return np.asarray(np.abs(label - prediction))
        case "accuracy":
            hard = prediction.argmax(axis=1) if prediction.ndim == 2 else prediction >= 0.5
            return np.asarray(hard == label, dtype="float64")
        case _:
            if prediction.ndim == 2:
                given = prediction[np.arange(len(label)), label.astype(int)]
            else:
                given = np.where(label == 1, prediction, 1 - prediction)
            return np.asarray(-np.log(np.clip(given, np.finfo("float32").eps, 1)))


def _per_block(values: np.ndarray | None, block: np.ndarray, counts: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.asarray(np.bincount(block, weights=values, minlength=counts.shape[1]), dtype="float64")


def _resample_roc_auc(label: np.ndarray, prediction: np.ndarray, block: np.ndarray, counts: np.ndarray) -> np.ndarray:
    import numpy as np

    blocks = counts.shape[1]
    positive, negative = label == 1, label != 1
    scores, owners = prediction[positive], block[positive]
    order = np.argsort(scores)  # a sorted search is many times faster than a random one
    scores, owners = scores[order], owners[order]
    won = np.zeros((blocks, blocks))
    for other in range(blocks):
        against = np.sort(prediction[negative & (block == other)])
        wins = np.searchsorted(against, scores, "left") + np.searchsorted(against, scores, "right")
        won[:, other] = np.bincount(owners, weights=wins / 2, minlength=blocks)
    pairs = (counts @ _per_block(positive, block, counts)) * (counts @ _per_block(negative, block, counts))
    return np.asarray(((counts @ won) * counts).sum(axis=1) / pairs)


def _resample_average_precision(
    label: np.ndarray, prediction: np.ndarray, block: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    import numpy as np

    order = np.argsort(-prediction, kind="stable")
    owners, hits = block[order], (label[order] == 1).astype("float64")
    ends = np.flatnonzero(np.append(np.diff(prediction[order]) != 0, True))  # ties count as one threshold
    found = []
    for part in np.array_split(counts, max(1, counts.shape[0] * len(label) // _CHUNK)):
        weights = part[:, owners].astype("float64")
        taken = weights.cumsum(axis=1)[:, ends]
        true = (weights * hits).cumsum(axis=1)[:, ends]
        precision = np.where(taken > 0, true / taken, 0)
        gained = np.diff(true, axis=1, prepend=0)
        found.append((gained * precision).sum(axis=1) / true[:, -1])
    return np.concatenate(found)


def _ensure_defined(metric: Metric, label: np.ndarray) -> None:
    if len(label) == 0:
        raise TrainError(metric, "must be measured on rows", "none")
    if metric in ("roc_auc", "average_precision") and (label == label[0]).all():
        only = "positive" if label[0] == 1 else "negative"
        hint = "Take a longer holdout, or check the label"
        raise TrainError(metric, "is not defined on one class; rows of both are needed", f"only {only} labels", hint)
