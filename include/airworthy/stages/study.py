"""The record of a search: every finished trial, kept where the next attempt finds it when this one is cut off."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from airworthy.config import Pipeline
from airworthy.errors import ServiceError
from airworthy.evidence import LOWER_IS_BETTER
from airworthy.locks import locked
from airworthy.mlflow_server import experiment_name
from airworthy.profile import Profile
from airworthy.provenance import environment
from airworthy.registry import Registry
from airworthy.searches import Found, Trial, earlier

log = logging.getLogger(__name__)

_CREATE_LOCK = 20131231  # any constant: two processes that create Optuna's tables at once must queue
Direction = Literal["minimize", "maximize"]

_SCHEMA = "tuning"
_DECIDING = ("numpy", "optuna", "scikit-learn", "xgboost", "xgboost-cpu")


class Study:
    """The trials of one training, in memory only unless a database is named.

    Trials are drawn in memory, in the same order in every attempt. What is kept here is what each came to, by its
    number and parameters: an attempt goes through those that the last one finished in no time, and comes to the same
    end.

    Args:
        name: Equal for trainings that must give the same, and for no others.
        url: A SQLAlchemy URL for Optuna's own tables.
        warm: What to begin with; what the first attempt began with takes its place.
        direction: `maximize` or `minimize`, for those who look into the database.

    Raises:
        ServiceError: The database does not answer.
    """

    def __init__(
        self, name: str = "", url: str = "", warm: Found | None = None, direction: Direction = "maximize"
    ) -> None:
        self.warm = warm
        self._recorded: dict[int, Trial] = {}
        self._url = url
        self._kept: optuna.Study | None = None
        if url:
            with self._answering():
                self._kept = _open(name, url, direction)
                self._read()

    def find(self, number: int, params: Mapping[str, Any]) -> Trial | None:
        """Returns what an earlier attempt found for this trial; None if it was not finished or had other parameters."""
        found = self._recorded.get(number)
        return found if found is not None and found.params == params else None

    def keep(self, trial: Trial, distributions: Mapping[str, BaseDistribution]) -> None:
        """Leaves a finished trial on record, whole or not at all.

        Raises:
            ServiceError: The database does not answer.
        """
        self._recorded[trial.number] = trial
        if self._kept is None:
            return
        stopped = trial.value is None
        frozen = optuna.create_trial(
            state=TrialState.PRUNED if stopped else TrialState.COMPLETE,
            value=trial.value,
            params=trial.params,
            distributions=dict(distributions),
            intermediate_values=trial.reports,
            user_attrs={"trial": trial.model_dump_json()},
        )
        with self._answering():
            self._kept.add_trial(frozen)

    def _read(self) -> None:
        assert self._kept is not None
        attributes = self._kept.user_attrs
        if "warm" not in attributes:
            self._kept.set_user_attr("warm", self.warm.model_dump_json() if self.warm else "")
        else:
            self.warm = Found.model_validate_json(attributes["warm"]) if attributes["warm"] else None
        for one in self._kept.get_trials(deepcopy=False):
            if "trial" in one.user_attrs:
                trial = Trial.model_validate_json(one.user_attrs["trial"])
                self._recorded.setdefault(trial.number, trial)
        if self._recorded:
            log.info("The search goes on after %d trials of an attempt that was cut off", len(self._recorded))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            where = f"tuning database at {sa.make_url(self._url).render_as_string(hide_password=True)}"
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ServiceError(where, "must answer", reason, "Look at `make status`, then run this again") from error


def open_study(
    pipeline: Pipeline, as_of: datetime, training_key: str, profile: Profile, *, backtest: str = ""
) -> Study:
    """Returns the study of a training, with what attempts at it have left that were cut off.

    A backtest has studies of its own: what a live search began with must not depend on it, nor the other way round.

    Raises:
        ServiceError: The database or MLflow does not answer.
    """
    if not pipeline.tune.space:
        return Study()
    warm = None
    if pipeline.tune.warm_start:
        warm = earlier(pipeline.name, space_digest(pipeline), as_of, Registry(profile), backtest=backtest)
    owner = experiment_name(pipeline.name, backtest=bool(backtest))
    return Study(study_name(owner, training_key), profile.tuning_url, warm, direction(pipeline))


def direction(pipeline: Pipeline) -> Direction:
    return "minimize" if pipeline.metric in LOWER_IS_BETTER else "maximize"


def study_name(pipeline: str, training_key: str) -> str:
    """Returns the name that trainings share if they must give the same: rows, declaration, code and libraries."""
    installed = environment()
    libraries = {name: installed.get(name) for name in _DECIDING}
    content = json.dumps([training_key, libraries], sort_keys=True)
    return f"{pipeline}-{hashlib.sha256(content.encode()).hexdigest()}"


def space_digest(pipeline: Pipeline) -> str:
    """Returns the SHA-256 of what is searched and for what: searches with equal ones can learn from each other."""
    searched = {
        "kind": pipeline.model.kind(),
        "model": pipeline.model.model_dump(mode="json", exclude={"params"}),
        "space": pipeline.tune.model_dump(mode="json", include={"space"}),
        "metric": pipeline.metric,
    }
    return hashlib.sha256(json.dumps(searched, sort_keys=True).encode()).hexdigest()


def _open(name: str, url: str, direction: Direction) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the trials are logged here, as a person wants to see them
    with _creating(url) as settings:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=settings)
        return optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)


@contextmanager
def _creating(url: str) -> Iterator[dict[str, Any]]:
    """Lets one process after the other make Optuna's tables; yields how its engine connects."""
    place = sa.make_url(url)
    if place.get_backend_name() == "sqlite":
        with locked(Path(place.database or "").resolve().parent):
            yield {}
        return
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if connection.dialect.name != "postgresql":
            yield {"pool_pre_ping": True}
            return
        connection.execute(sa.select(sa.func.pg_advisory_lock(_CREATE_LOCK)))  # until the connection is closed
        connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}"))
        connection.commit()
        # Optuna keeps its version in a table whose name other users of a database have as well, MLflow among them.
        yield {"pool_pre_ping": True, "connect_args": {"options": f"-csearch_path={_SCHEMA}"}}
