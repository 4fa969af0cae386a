"""Model cards: one page per judged training run with all a person needs to agree to it, or to look it up later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from airworthy.config import Pipeline
from airworthy.errors import ModelError
from airworthy.profile import Profile
from airworthy.registry import Registry

FOLDER = "card"


def page_path(pipeline: Pipeline, run_id: str) -> str:
    """Returns where the card of a run is below the profile's `reports_dir`."""
    return f"{pipeline.name}/cards/{run_id}.html"


def publish(pipeline: Pipeline, run_id: str, profile: Profile) -> Path:
    """Returns the card's page, once it is written, kept with the MLflow run, and shown with its version.

    The run gets `card/card.html`, `card/card.md` and its picture; the version, if there is one, the summary as its
    description. Written again, it tells what has happened since, e.g. that the model was promoted.

    Raises:
        ModelError: The run was not judged yet.
        ServiceError: MLflow or the ledger does not answer.
    """
    from airworthy.card.markdown import markdown
    from airworthy.card.record import read
    from airworthy.card.sections import PICTURE, sections, summary
    from airworthy.pages import write_page

    record = read(pipeline, run_id, profile)
    found = sections(record)
    title = f"{pipeline.name}: model card, as of {record.challenger.as_of:%Y-%m-%d}"
    page = profile.reports_dir / page_path(pipeline, run_id)
    write_page(page, title, found)
    pictures = {one.heading: one.picture for one in found if isinstance(one.picture, bytes)}
    text = markdown(title, found, dict.fromkeys(pictures, PICTURE))
    files: Mapping[str, bytes] = {
        f"{FOLDER}/card.html": page.read_bytes(),
        f"{FOLDER}/card.md": text.encode(),
        **{f"{FOLDER}/{PICTURE}": picture for picture in pictures.values()},
    }
    registry = Registry(profile)
    registry.store_artifacts(run_id, files)
    if record.version:
        registry.describe(pipeline.name, record.version, markdown(title, summary(record), {}))
    return page


def run(pipeline: Pipeline, version: str, profile: Profile) -> Path:
    """Returns the page of the card of one version, written anew.

    Raises:
        ModelError: There is no such version, or it was not judged.
        ServiceError: MLflow or the ledger does not answer.
    """
    from airworthy.training_runs import TrainingRuns

    for training in TrainingRuns(profile).of(pipeline.name):
        if version in training.versions:
            return publish(pipeline, training.run_id, profile)
    known = "Versions are listed by: airworthy ledger show"
    raise ModelError(f"{pipeline.name}: version {version}", "must be in MLflow's registry", hint=known)
