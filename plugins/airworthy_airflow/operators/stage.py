"""What all stage operators share: the pipeline, the links, and which errors are worth a retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airworthy.alerts import Kind
from airworthy.config import Pipeline
from airworthy.connections import Connections
from airworthy.errors import AirworthyError, ConflictError, DataError, Problems, ServiceError
from airworthy.partitions import Partition
from airworthy.profile import Profile, load_profile
from airworthy_airflow import connections
from airworthy_airflow.moments import partitions_of
from airworthy_airflow.notifiers import FailureNotifier

if TYPE_CHECKING:
    from airworthy.store import Store


RETRIABLE = (ServiceError, ConflictError)


class StageOperator(BaseOperator):
    """Has a pipeline and knows the places it works with."""

    ui_color = "#e8f1fb"
    alerts_as: ClassVar[Kind | None] = None  # what kind of alert it is when the task fails for good

    def __init__(self, *, pipeline: Pipeline, **kwargs: Any) -> None:
        if pipeline.alerts and self.alerts_as:
            kwargs["on_failure_callback"] = FailureNotifier(pipeline, self.alerts_as)
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


class PartitionOperator(StageOperator):
    """Does its stage for every partition of the run, and fails at the end if it could not for some of them.

    Returns one reference per partition that went well; the next stage goes on with those.
    """

    alerts_as = "data"

    def execute(self, context: Any) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        failed: list[AirworthyError] = []
        with final_errors():
            partitions = partitions_of(context, self.pipeline)
            for number, partition in enumerate(partitions, start=1):
                try:
                    done.append(self.work(context, partition))
                except AirworthyError as error:
                    failed.append(error)
                    self.log.error("%s", error)
                if len(partitions) > 1:
                    self.log.info("%d of %d partitions", number, len(partitions))
            if done:
                self.publish(context, done)
            if failed:
                context["ti"].xcom_push("return_value", done)
                mendable = [error for error in failed if isinstance(error, RETRIABLE)]
                raise mendable[0] if mendable else failed[0] if len(failed) == 1 else Problems(self.task_id, failed)
        return done

    def work(self, context: Any, partition: Partition) -> dict[str, Any]:
        """Returns a reference to what the stage made of one partition."""
        raise NotImplementedError

    def publish(self, context: Any, done: list[dict[str, Any]]) -> None:
        """Tells others what was made of the partitions that went well, once for all of them."""

    @staticmethod
    def before(references: Any, partition: Partition) -> dict[str, Any]:
        """Returns what the stage before made of a partition.

        Raises:
            DataError: It made nothing of it.
        """
        for reference in references or ():
            if reference["partition"] == partition.key:
                return dict(reference)
        raise DataError(f"partition {partition.key}", "did not get through the stage before this one")


@contextmanager
def final_errors() -> Iterator[None]:
    """Fails the task at once on errors that a retry cannot mend; a service that is down may come back."""
    try:
        yield
    except RETRIABLE:
        raise
    except AirworthyError as error:
        raise AirflowFailException(str(error)) from error
