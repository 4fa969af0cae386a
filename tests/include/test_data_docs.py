"""Great Expectations' pages of results: whole, small, and with nothing from elsewhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airworthy import data_docs
from airworthy.config import Expectation
from airworthy.data_docs import Summary, docs_path, publish
from airworthy.errors import Problems
from airworthy.expectations import Outcome, run
from airworthy.partitions import partitions_between
from airworthy.stages.ingest import ingest
from airworthy.stages.validate import page_path, validate
from parcels import DAY, NEXT_DAY, World, parcels, world

__all__ = ["world"]

EVIL = "<script>alert('1')</script> & <img src=x onerror=alert(2)>"


class Text(HTMLParser):
    """The text of a page, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def outcomes(frame: pd.DataFrame, *expectations: dict[str, Any]) -> list[Outcome]:
    named = [Expectation(type=name, kwargs=kwargs) for one in expectations for name, kwargs in one.items()]
    return run(frame, named, listed=10)


def summary(found: list[Outcome], partition: str = DAY.key, **changes: Any) -> Summary:
    failed = tuple(one.title for one in found if one.status != "passed")
    facts = {"version": 3, "blocked": False, "rows": 10, "bad_rows": 0, "expectations": len(found), "failed": failed}
    return Summary.model_validate({"partition": partition, **facts, **changes})


def read(folder: Path, found: list[Outcome]) -> Text:
    publish("parcels", summary(found), found, folder)
    return Text((folder / docs_path("parcels", DAY.key)).read_text())


def test_it_says_what_great_expectations_says(tmp_path: Path) -> None:
    found = outcomes(
        parcels(),
        {"expect_column_values_to_be_between": {"column": "weight", "max_value": 4}},
        {"expect_column_values_to_be_in_set": {"column": "service", "value_set": ["fast", "slow"]}},
        {"expect_column_mean_to_be_between": {"column": "weight", "min_value": 1, "max_value": 5}},
        {"expect_table_row_count_to_be_between": {"min_value": 11, "severity": "warning"}},
        {"expect_column_mean_to_be_between": {"column": "service", "max_value": 1}},
        {
            "expect_column_quantile_values_to_be_between": {
                "column": "weight",
                "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 9]]},
            }
        },
        {
            "expect_column_kl_divergence_to_be_less_than": {
                "column": "service",
                "threshold": 0.1,
                "partition_object": {"values": ["fast", "slow"], "weights": [0.5, 0.5]},
            }
        },
    )
    page = read(tmp_path, found)
    text = " ".join(page.text.split())
    for shown in (
        "Expectation Suite: parcels",
        "raw[2026-01-05], version 3",
        "values must be less than or equal to 4 .",
        "2 unexpected values found. 20% of 10 total rows.",
        "values must belong to this set: fast slow .",
        "Must have greater than or equal to 11 rows.",
        "expect_column_mean_to_be_between raised an exception",
        "Median",
        "fast 0.5",
    ):
        assert shown in text, shown
    statistics = text.partition("Statistics")[2].strip()
    assert statistics.startswith("Evaluated Expectations 7 Successful Expectations 4 Unsuccessful Expectations 3")


def test_it_loads_and_runs_nothing_and_shows_values_as_they_are(tmp_path: Path) -> None:
    rows = parcels(service=EVIL).rename(columns={"weight": EVIL})
    found = outcomes(
        rows,
        {"expect_column_values_to_be_in_set": {"column": "service", "value_set": [EVIL + "!"]}},
        {"expect_column_values_to_be_between": {"column": EVIL, "max_value": 4}},
        {"expect_column_values_to_be_between": {"column": EVIL + "?", "max_value": 4}},
        {"expect_column_max_to_be_between": {"column": "service", "max_value": 4}},
        {"expect_column_distinct_values_to_be_in_set": {"column": "service", "value_set": [EVIL + "!"]}},
    )
    page = read(tmp_path, found)
    assert {"script", "img", "link", "iframe", "form"} & page.tags == set()
    assert page.addresses == ["index.html", f"../validate/{DAY.key}.html"]
    assert page.text.count(EVIL) > 4
    whole = (tmp_path / docs_path("parcels", DAY.key)).read_text()
    assert "onerror=alert(2)>" not in whole.replace("&gt;", "") and "://" not in whole and len(whole) < 20_000


def test_what_could_not_be_run_is_told(tmp_path: Path) -> None:
    misspelt = {"expect_column_values_to_be_between": {"column": "weight", "max_valu": 4}}
    page = read(tmp_path, outcomes(parcels(), misspelt))
    assert "Could not be judged" in page.text and "max_valu" in page.text


def test_the_index_has_a_line_for_each_partition_and_the_newest_first(world: World) -> None:
    light = {"expect_column_values_to_be_between": {"column": "weight", "max_value": 5}}
    pipeline = world.pipeline(checks={"allowed_bad_share": 0.1, "expectations": [light]})
    validate(pipeline, DAY, ingest(pipeline, DAY, world.store), world.store, world.reports)
    world.rows = parcels(partition=NEXT_DAY, weight=6.0)
    pipeline = world.pipeline(checks={"allowed_bad_share": 0.1, "expectations": [light]})
    with pytest.raises(Problems):
        validate(pipeline, NEXT_DAY, ingest(pipeline, NEXT_DAY, world.store), world.store, world.reports)
    folder = world.reports / "parcels" / "data_docs"
    index = Text((folder / data_docs.INDEX).read_text())
    assert index.addresses == [f"{NEXT_DAY.key}.html", f"{DAY.key}.html"]
    assert "2 partitions were checked: 1 are blocked, 1 have rows in quarantine." in index.text
    assert f"{NEXT_DAY.key} blocked 10 10 100.00% 4 expect_column_values_to_be_between(weight)" in index.text
    assert f"{DAY.key} passed 10 1 10.00% 4" in index.text
    assert all((folder / address).exists() for address in index.addresses)
    result = Text((world.reports / page_path(pipeline, DAY)).read_text())
    assert result.addresses == [f"../data_docs/{DAY.key}.html", "../data_docs/index.html"]
    assert all((world.reports / "parcels" / "validate" / address).resolve().exists() for address in result.addresses)


def test_many_at_once_are_all_in_the_index(tmp_path: Path) -> None:
    found = outcomes(parcels(), {"expect_table_row_count_to_be_between": {"min_value": 1}})
    days = [day.key for day in partitions_between("day", DAY.start, DAY.start + pd.Timedelta(days=40))]
    read(tmp_path, found)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda day: publish("parcels", summary(found, day), found, tmp_path), days))
    folder = tmp_path / "parcels" / "data_docs"
    index = Text((folder / data_docs.INDEX).read_text())
    assert index.addresses == [f"{day}.html" for day in reversed(days)]
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_a_rerun_writes_the_same_page(tmp_path: Path) -> None:
    found = outcomes(parcels(), {"expect_column_values_to_be_between": {"column": "weight", "max_value": 4}})
    read(tmp_path, found)
    before = (tmp_path / docs_path("parcels", DAY.key)).read_text()
    read(tmp_path, found)
    assert (tmp_path / docs_path("parcels", DAY.key)).read_text() == before
