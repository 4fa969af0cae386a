"""What all stage operators share: the pipeline, the links, and which errors are worth a retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airworthy.config import Pipeline
from airworthy.connections import Connections
from airworthy.errors import AirworthyError, ConflictError, ServiceError
from airworthy.profile import Profile, load_profile
from airworthy_airflow import connections

if TYPE_CHECKING:
    from airworthy.store import Store


class StageOperator(BaseOperator):
    """Has a pipeline and knows the places it works with."""

    ui_color = "#e8f1fb"

    def __init__(self, *, pipeline: Pipeline, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.links: dict[str, str] = {}

    @property
    def profile(self) -> Profile:
        return load_profile()

    @property
    def store(self) -> Store:
        from airworthy.store import Store

        return Store(self.profile.store_uri, self.pipeline.name)

    @property
    def connections(self) -> Connections:
        """Resolves the connection ids that a source names, through Airflow."""
        return connections.resolve


@contextmanager
def final_errors() -> Iterator[None]:
    """Fails the task at once on errors that a retry cannot mend; a service that is down may come back."""
    try:
        yield
    except (ServiceError, ConflictError):
        raise
    except AirworthyError as error:
        raise AirflowFailException(str(error)) from error
