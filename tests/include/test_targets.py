from __future__ import annotations

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from airworthy import kinds
from airworthy.errors import ServiceError
from airworthy.ledger import Ledger
from airworthy.registry import Registry
from airworthy.targets.serving import Serving
from serving_process import corrupt, promote, serving, trained
from toy_pipeline import Toy


def test_a_pipeline_file_declares_it_by_name() -> None:
    assert kinds.parse("targets", "serving") == Serving(timeout=60)
    assert kinds.parse("targets", {"serving": {"timeout": 5}}) == Serving(timeout=5)
    with pytest.raises(ValidationError, match="greater than 0"):
        kinds.parse("targets", {"serving": {"timeout": 0}})


def test_a_live_version_has_an_endpoint(toy: Toy) -> None:
    toy.fill(toy.pipeline(), toy.rows())
    entry = promote(toy, trained(toy, toy.pipeline()))
    with serving(toy) as server:
        profile = toy.profile.model_copy(update={"serving_url": f"{server.url}/"})
        endpoint = Serving(timeout=3600).wait_until_live(entry, profile)
    assert endpoint == f"{server.url}/invocations?pipeline={toy.name}"


def test_a_refusal_ends_the_wait_with_its_reason_and_a_later_entry_starts_afresh(toy: Toy) -> None:
    toy.fill(toy.pipeline(), toy.rows())
    challenger = trained(toy, toy.pipeline())
    whole = Registry(toy.profile).download(challenger.model_id, toy.folder / "whole") / "model.ubj"
    corrupt(toy, challenger)
    entry = promote(toy, challenger)
    with serving(toy, AIRWORTHY_SERVING_POLL="1") as server:  # slow enough to still show the refusal to the second wait
        profile = toy.profile.model_copy(update={"serving_url": server.url})
        with pytest.raises(ServiceError, match=r"must answer for toy_\w+ with 1\. Got 'no model'.*recorded SHA-256"):
            Serving(timeout=3600).wait_until_live(entry, profile)
        Ledger(toy.profile.ledger_url).rollback(toy.name, entry.version, "test")
        MlflowClient(toy.mlflow_uri).log_model_artifact(challenger.model_id, str(whole))
        again = promote(toy, challenger)
        assert (again.version, again.sequence) == (entry.version, 3)
        assert Serving(timeout=3600).wait_until_live(again, profile).startswith(server.url)


def test_a_server_that_does_not_answer_is_named(toy: Toy) -> None:
    toy.fill(toy.pipeline(), toy.rows())
    entry = promote(toy, trained(toy, toy.pipeline()))
    with pytest.raises(ServiceError, match=r"^serving at http://127.0.0.1:1: must answer .* It does not answer \(.*"):
        Serving(timeout=0.1).wait_until_live(entry, toy.profile)
