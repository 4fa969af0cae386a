"""Deploy targets: where a champion answers. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from airworthy.errors import ServiceError
from airworthy.kinds import Kind

if TYPE_CHECKING:
    from airworthy.ledger import Entry
    from airworthy.profile import Profile


class Target(Kind):
    """A declared place where the champion of a pipeline answers.

    Attributes:
        timeout: Seconds a new champion has to go live before it is rolled back.
        splits: Whether it can let a canary's challenger answer a share of the requests.
    """

    splits: ClassVar[bool] = False

    timeout: float = Field(default=60, gt=0)

    @abstractmethod
    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        """Returns the endpoint's URL once it answers with the version that a ledger entry made champion.

        Raises:
            ServiceError: It did not within `timeout` seconds, or refused it; the message carries its own reason.
        """

    def wait_until_split(self, entry: Entry, profile: Profile) -> str:
        """Returns the endpoint's URL once a canary's challenger answers there as its ledger entry says.

        Raises:
            ServiceError: It did not within `timeout` seconds, or refused it; or the target cannot split.
        """
        raise ServiceError(self.kind(), "must be a target that can let two versions answer", entry.version)

    def canary(self, pipeline: str, profile: Profile) -> dict[str, Any]:
        """Returns what the target says of the canary of a pipeline: `counts` and average `seconds` of both versions.

        Raises:
            ServiceError: It does not answer, or cannot split.
        """
        raise ServiceError(self.kind(), "must be a target that can let two versions answer", pipeline)
