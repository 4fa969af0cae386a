"""The pictures of a model card: how well the answers tell the labels apart, and how far they can be believed."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from airworthy.evidence import Evidence, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHALLENGER, _CHAMPION, _SOFT = "#1f6feb", "#d29922", "#8b949e"
_POINTS = 300  # of a curve; more are not seen, and make the file large
_BINS = 10
_SAMPLE = 4000


def pictures(evidence: Evidence) -> bytes:
    """Returns an SVG of the panels that fit the task, challenger and champion in each.

    Binary: receiver operating characteristic, precision and recall, calibration, answers by label. Multiclass:
    confusion, calibration of the likeliest class. Regression: answers against labels, residuals.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = _PANELS[evidence.task]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.3), layout="constrained", squeeze=False)
    for place, (title, draw) in zip(axes[0], panels, strict=True):
        place.set_title(title, fontsize=10)
        place.tick_params(labelsize=8)
        draw(place, evidence)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "card"}):  # the same evidence, the same bytes
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def _models(evidence: Evidence) -> list[tuple[str, str, Scores]]:
    found = [("challenger", _CHALLENGER, evidence.challenger)]
    if evidence.champion is not None:
        found.insert(0, (f"champion (version {evidence.champion.version})", _CHAMPION, evidence.champion))
    return found


def _thinned(*curves: Any) -> list[Any]:
    step = max(1, len(curves[0]) // _POINTS)
    kept = np.append(np.arange(0, len(curves[0]) - 1, step), len(curves[0]) - 1)
    return [np.asarray(curve)[kept] for curve in curves]


def _roc(axes: Axes, evidence: Evidence) -> None:
    from sklearn.metrics import roc_curve

    axes.plot([0, 1], [0, 1], ":", color=_SOFT, lw=1)
    for name, colour, scores in _models(evidence):
        wrong, right, _ = roc_curve(evidence.label, scores.prediction)
        axes.plot(*_thinned(wrong, right), color=colour, lw=1.6, label=name)
    axes.set_xlabel("false positives", fontsize=8)
    axes.set_ylabel("true positives", fontsize=8)
    axes.legend(fontsize=7, loc="lower right")


def _precision(axes: Axes, evidence: Evidence) -> None:
    from sklearn.metrics import precision_recall_curve

    axes.axhline(float(np.mean(evidence.label)), ls=":", color=_SOFT, lw=1)
    for name, colour, scores in _models(evidence):
        precision, recall, _ = precision_recall_curve(evidence.label, scores.prediction)
        axes.plot(*_thinned(recall, precision), color=colour, lw=1.6, label=name)
    axes.set_xlabel("recall", fontsize=8)
    axes.set_ylabel("precision", fontsize=8)


def _calibration(axes: Axes, evidence: Evidence) -> None:
    axes.plot([0, 1], [0, 1], ":", color=_SOFT, lw=1)
    for name, colour, scores in _models(evidence):
        if evidence.task == "multiclass":
            said = scores.prediction.max(axis=1)
            came = scores.prediction.argmax(axis=1) == evidence.label
        else:
            said, came = scores.prediction, evidence.label == 1
        groups = np.array_split(np.argsort(said, kind="stable"), _BINS)
        points = [(said[group].mean(), came[group].mean()) for group in groups if len(group)]
        axes.plot(*zip(*points, strict=True), "o-", color=colour, lw=1.2, markersize=3.5, label=name)
    axes.set_xlabel("said", fontsize=8)
    axes.set_ylabel("came true", fontsize=8)


def _by_label(axes: Axes, evidence: Evidence) -> None:
    edges = np.linspace(0, 1, 41).tolist()
    for value, colour, name in ((0, _SOFT, "label 0"), (1, _CHALLENGER, "label 1")):
        chosen = evidence.challenger.prediction[evidence.label == value]
        axes.hist(chosen, edges, density=True, alpha=0.55, color=colour, label=name)
    axes.set_xlabel("the challenger's answers", fontsize=8)
    axes.legend(fontsize=7)


def _confusion(axes: Axes, evidence: Evidence) -> None:
    from sklearn.metrics import confusion_matrix

    classes = range(evidence.challenger.prediction.shape[1])
    found = confusion_matrix(
        evidence.label, evidence.challenger.prediction.argmax(axis=1), labels=list(classes), normalize="true"
    )
    axes.imshow(found, cmap="Blues", vmin=0, vmax=1)
    names = evidence.classes or tuple(map(str, classes))
    axes.set_xticks(list(classes), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(list(classes), names, fontsize=7)
    axes.set_xlabel("answered", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)


def _answers(axes: Axes, evidence: Evidence) -> None:
    chosen = np.random.default_rng(0).permutation(len(evidence.label))[:_SAMPLE]
    for name, colour, scores in _models(evidence):
        axes.plot(evidence.label[chosen], scores.prediction[chosen], ",", color=colour, alpha=0.5, label=name)
    low, high = float(evidence.label.min()), float(evidence.label.max())
    axes.plot([low, high], [low, high], ":", color=_SOFT, lw=1)
    axes.set_xlabel("label", fontsize=8)
    axes.set_ylabel("answer", fontsize=8)


def _residuals(axes: Axes, evidence: Evidence) -> None:
    for name, colour, scores in _models(evidence):
        residual = scores.prediction - evidence.label
        low, high = np.quantile(residual, [0.005, 0.995])
        axes.hist(residual.clip(low, high), 40, histtype="step", density=True, color=colour, label=name)
    axes.axvline(0, ls=":", color=_SOFT, lw=1)
    axes.set_xlabel("answer minus label", fontsize=8)
    axes.legend(fontsize=7)


_Panel = tuple[str, Callable[["Axes", Evidence], None]]
_PANELS: dict[str, tuple[_Panel, ...]] = {
    "binary": (
        ("ROC", _roc),
        ("Precision and recall", _precision),
        ("Calibration", _calibration),
        ("Answers by label", _by_label),
    ),
    "multiclass": (("Confusion", _confusion), ("Calibration", _calibration)),
    "regression": (("Answers", _answers), ("Residuals", _residuals)),
}
