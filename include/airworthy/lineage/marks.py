"""The mark and the page that tell, where people look, that a partition holds other rows than a model was built on."""

from __future__ import annotations

import logging

from airworthy.config import Pipeline
from airworthy.lineage import FEATURES, Lineage, lineages
from airworthy.lineage.page import write_page
from airworthy.lineage.tables import name, told_stale
from airworthy.profile import Profile
from airworthy.store import Store
from airworthy.training_runs import TrainingRuns

STALE = "airworthy.stale"

log = logging.getLogger(__name__)


def up_to_date(pipeline: Pipeline, profile: Profile, *run_ids: str) -> list[Lineage]:
    """Returns the lineage of every training run, once MLflow and the pages tell which are stale, and no other is.

    Run again it changes nothing; run at the same time as others, and as partitions are written, it leaves what
    the newest version of the table asks for.

    Args:
        pipeline: Whose runs.
        profile: Where the tables, MLflow, the ledger and the pages are.
        run_ids: Runs whose page is to be written although their mark is as it was.

    Raises:
        ServiceError: MLflow or the ledger does not answer; the next call does what this one did not.
    """
    store, runs = Store(profile.store_uri, pipeline.name), TrainingRuns(profile)
    found: list[Lineage] = []
    version = None
    while version != (newest := store.version(FEATURES)):  # another write may have come while this one was marked
        version, found = newest, lineages(pipeline, profile)
        for lineage in found:
            told = told_stale(lineage.stale) or None
            differs = any(tags.get(STALE) != told for tags in (lineage.run.tags, *lineage.run.versions.values()))
            if differs or lineage.run.run_id in run_ids:
                write_page(pipeline, lineage, profile)
            if differs:  # the mark comes last, so that a crash in between does not leave an old page
                runs.mark(pipeline.name, lineage.run, STALE, told)
                log.info("%s: %s", name(lineage), f"stale: {told}" if told else "not stale any more")
    return found
