"""The page that a training task links to: what its model was made from."""

from __future__ import annotations

from airworthy.config import Pipeline
from airworthy.lineage import Lineage, tables
from airworthy.lineage.picture import picture
from airworthy.lineage.tables import name, told_stale
from airworthy.pages import Section
from airworthy.pages import write_page as write
from airworthy.profile import Profile
from airworthy.registry import Registry


def page_path(pipeline: Pipeline, run_id: str) -> str:
    """Returns where the page of a training run is, below `reports_dir`."""
    return f"{pipeline.name}/lineage/{run_id}.html"


def write_page(pipeline: Pipeline, lineage: Lineage, profile: Profile) -> None:
    """Leaves the page of a training run as of now, with a picture of it."""
    address = Registry(profile).run_url(lineage.run.run_id)
    sections = [
        Section("From source to champion", picture=picture(lineage)),
        Section("What made it", told_stale(lineage.stale), table=tables.model(lineage, address)),
        Section("What it was made from", table=tables.partitions(lineage)),
    ]
    title = f"{pipeline.name}: lineage of {name(lineage)}"
    write(profile.reports_dir / page_path(pipeline, lineage.run.run_id), title, sections)
