"""Deploy targets: where a champion answers. One file per kind."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from airworthy.kinds import Kind

if TYPE_CHECKING:
    from airworthy.ledger import Entry
    from airworthy.profile import Profile


class Target(Kind):
    """A declared place where the champion of a pipeline answers.

    Attributes:
        timeout: Seconds a new champion has to go live before it is rolled back.
    """

    timeout: float = Field(default=60, gt=0)

    @abstractmethod
    def wait_until_live(self, entry: Entry, profile: Profile) -> str:
        """Returns the endpoint's URL once it answers with the version that a ledger entry made champion.

        Raises:
            ServiceError: It did not within `timeout` seconds, or refused it; the message carries its own reason.
        """
