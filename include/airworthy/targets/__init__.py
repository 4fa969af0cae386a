"""Deploy targets: where a champion answers. One file per kind."""

from __future__ import annotations

from abc import abstractmethod

from airworthy.kinds import Kind


class Target(Kind):
    """A declared place where the champion of a pipeline answers."""

    @abstractmethod
    def wait_until_live(self, pipeline: str, version: str, timeout: float) -> str:
        """Returns the endpoint's URL once it answers with `version`.

        Raises:
            ServiceError: It did not within `timeout` seconds; the message carries its own reason.
        """
