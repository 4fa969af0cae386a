"""A backtest as a page, as text and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airworthy import lines
from airworthy.backtest.accounts import BLIND, CHAMPION, STATIC, Account, contests
from airworthy.backtest.comparison import CONFIDENCE, counted
from airworthy.backtest.replay import Decision
from airworthy.backtest.results import AFTER
from airworthy.pages import Section, write_page
from airworthy.profile import Profile
from airworthy.terminal import lines as table_lines

SHOWN = {CHAMPION: "gated champion", BLIND: "blind retraining", STATIC: "never retraining"}

Table = tuple[Sequence[str], list[tuple[Any, ...]]]


def publish(found: Sequence[Account], profile: Profile) -> Path:
    """Returns the page `<pipeline>/backtest.html` below the profile's `reports_dir`, written whole."""
    name = found[0].pipeline.name
    sections = [Section("Which policy is better", "\n\n".join(_verdicts(found)), table=summary(found))]
    for account in found:
        text = _declared(account)
        sections += [
            Section(f"{account.policy}: score by month", text, table=months(account), picture=picture(account)),
            Section(f"{account.policy}: every decision", _known(account), table=decisions(account)),
        ]
    file = profile.reports_dir / name / "backtest.html"
    write_page(file, f"{name}: backtest", sections)
    return file


def text(found: Sequence[Account]) -> Iterator[str]:
    """Yields the lines of a report for a terminal."""
    for account in found:
        yield f"{account.policy}: {account.pipeline.metric} by month, and what the gates decided before it"
        head, rows = months(account)
        yield from table_lines(head, [_words(row) for row in rows])
        yield ""
    head, rows = summary(found)
    yield from table_lines(head, [_words(row) for row in rows])
    yield ""
    yield from _verdicts(found)


def machine(found: Sequence[Account]) -> dict[str, Any]:
    """Returns a report as JSON has it."""
    return {
        "pipeline": found[0].pipeline.name,
        "metric": found[0].pipeline.metric,
        "confidence": CONFIDENCE,
        "policies": {account.policy: _account(account) for account in found},
        "contests": [
            {"one": contest.one.policy, "other": contest.other.policy, **_gain(contest.gain), "says": contest.says}
            for contest in contests(found)
        ],
    }


def summary(found: Sequence[Account]) -> Table:
    """Returns what every policy came to, a row each."""
    head = (
        "policy",
        "trainings",
        "promoted",
        *SHOWN.values(),
        "by rows",
        "against blind",
        "against never",
        "worst month",
    )
    rows = []
    for account in found:
        means = account.means
        rows.append(
            (
                account.policy,
                len(account.decisions),
                sum(decision.promoted for decision in account.decisions),
                *(_score(means[line]) for line in lines.LINES),
                " / ".join(_score(account.weighted[line]) for line in lines.LINES),
                *(str(account.gain(line) or "-") for line in (BLIND, STATIC)),
                _worst(account),
            )
        )
    return head, rows


def months(account: Account) -> Table:
    """Returns each line's score by month, and the decisions that fell into it or came right before."""
    head = ("month", "rows", *SHOWN.values(), "against the better", "decided")
    rows = []
    for number, row in enumerate(account.scores.to_dict("records")):
        said = [one.result for one in account.decisions if f"{one.challenger.as_of:%Y-%m}" == f"{row['month']:%Y-%m}"]
        rows.append(
            (
                f"{row['month']:%Y-%m}",
                int(row["rows"]),
                *(_score(row[line]) for line in lines.LINES),
                _signed(0.0 - account.shortfall.iloc[number]),
                "; ".join(said),
            )
        )
    return head, rows


def decisions(account: Account) -> Table:
    """Returns every decision: what was known, what each gate said, and what came after."""
    metric = account.pipeline.metric
    head = (
        "as of",
        "window",
        "features",
        "challenger",
        "champion",
        "decided",
        "what the gates said",
        f"{metric} after",
    )
    return head, [_decision(one, metric) for one in account.decisions]


def picture(account: Account) -> bytes:
    """Returns the three lines by month as an SVG picture, promotions and refusals marked."""
    said = {
        promoted: {f"{one.challenger.as_of:%Y-%m}" for one in account.decisions if one.promoted is promoted}
        for promoted in (True, False)
    }
    marks = [
        lines.Mark("challenger promoted", said[True], "^", "#1a7f37"),
        lines.Mark("challenger refused", said[False], "X", "#cf222e"),
    ]
    title = f"{account.pipeline.name}, policy {account.policy}: each month predicted by the model in force"
    names = [SHOWN[line] for line in lines.LINES]
    return lines.picture(counted(account.scores), account.pipeline.metric, title, marks, names)


def _decision(one: Decision, metric: str) -> tuple[Any, ...]:
    start, end = one.window
    after = one.scored[one.scored["part"] == AFTER]
    reference = one.challenger.features
    return (
        f"{one.challenger.as_of:%Y-%m-%d}",
        f"{start:%Y-%m-%d} to {end:%Y-%m-%d}",
        f"version {reference.version}, {reference.rows} rows",
        _score(one.challenger_score),
        "-" if one.champion_score is None else _score(one.champion_score),
        one.result,
        "; ".join(f"{verdict.gate} {verdict.status}: {verdict.reason}" for verdict in one.verdicts),
        ", ".join(f"{row['start']:%b} {row[metric]:.3f}" for row in after.to_dict("records")),
    )


def _verdicts(found: Sequence[Account]) -> Iterator[str]:
    for contest in contests(found):
        yield f"{contest.says}."
    yield (
        f"Gains are means over months with {CONFIDENCE:.0%} intervals from a paired bootstrap of whole days; "
        "positive is better. Months with less than a tenth of the usual rows are shown, and count by their rows only. "
        "`against the better` is the distance from the better of the other two lines, which only hindsight knows."
    )


def _declared(account: Account) -> str:
    under = account.pipeline
    window = under.model_dump(mode="json")["train"]["window"]
    return f"Window: {window}. Gates: {', '.join(gate.kind() for gate in under.gates)}."


def _known(account: Account) -> str:
    versions = {one.challenger.features.version for one in account.decisions}
    return (
        "Each challenger was trained and judged on rows whose label was known at its date, and met the champion that "
        "the decisions above it had made. The rows are those of the features table at version "
        f"{', '.join(map(str, sorted(versions)))}: corrections that came later than a date are in them."
    )


def _account(account: Account) -> dict[str, Any]:
    scores = account.scores.assign(month=account.scores["month"].astype(str).str[:7])
    return {
        "means": account.means,
        "means_by_rows": account.weighted,
        "gains": {line: _gain(account.gain(line)) for line in (BLIND, STATIC)},
        "months": scores.astype(object).where(scores.notna(), None).to_dict("records"),
        "decisions": [
            {
                "as_of": one.challenger.as_of.isoformat(),
                "run_id": one.challenger.run_id,
                "window": [moment.isoformat() for moment in one.window],
                "features": one.challenger.features.model_dump(),
                "challenger": one.challenger_score,
                "champion": one.champion_score,
                "champion_as_of": one.champion.as_of.isoformat() if one.champion else None,
                "verdicts": [verdict.model_dump(mode="json") for verdict in one.verdicts],
                "promoted": one.promoted,
            }
            for one in account.decisions
        ],
    }


def _gain(found: Any) -> dict[str, Any]:
    if found is None:
        return {"gain": None}
    return {"gain": found.mean, "gain_by_rows": found.weighted, "interval": found.interval, "months": found.months}


def _worst(account: Account) -> str:
    found = account.worst
    return "-" if found is None else f"{_signed(-found[1])} in {found[0]:%Y-%m}"


def _signed(value: float) -> str:
    return f"{value + 0.0:+.4f}" if np.isfinite(value) else "-"


def _score(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "-"


def _words(row: Sequence[Any]) -> list[str]:
    return [str(cell) for cell in row]
