"""The pages that tasks link to, in a real browser: nothing is fetched, nothing runs, and all of it can be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from airworthy.data_docs import INDEX, docs_path
from airworthy.profile_page import profile_path
from airworthy.stages.ingest import ingest
from airworthy.stages.validate import page_path, validate
from parcels import DAY, World, parcels, world

__all__ = ["world"]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here; .ci/run installs one")

EVIL = "<img src=http://127.0.0.1:9/x onerror=document.title='run'><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def pages(world: World) -> dict[str, Path]:
    """The pages of a validation in which much fails, by what they are."""
    world.rows = parcels(100, service=["fast"] * 60 + [EVIL] * 40)
    checks = [
        {"expect_column_values_to_be_in_set": {"column": "service", "value_set": ["fast", EVIL + "!"]}},
        {"expect_column_mean_to_be_between": {"column": "weight", "max_value": 9}},
        {"expect_column_values_to_be_between": {"column": "weight", "max_value": 3, "severity": "warning"}},
    ]
    pipeline = world.pipeline(checks={"allowed_bad_share": 0.5, "expectations": checks})
    validate(pipeline, DAY, ingest(pipeline, DAY, world.store), world.store, world.reports)
    docs = world.reports / docs_path(pipeline.name, DAY.key)
    profile = world.reports / profile_path(pipeline.name, DAY.key)
    return {
        "docs": docs,
        "index": docs.with_name(INDEX),
        "profile": profile,
        "validation": world.reports / page_path(pipeline, DAY),
    }


SHOWS = {
    "docs": ("Data Docs of 2026-01-05", "values must belong to this set", "Status: ✗ Failed"),
    "index": ("2026-01-05", "passed", "expect_column_values_to_be_in_set(service)"),
    "profile": ("profile of 2026-01-05", "Quartiles", "What tells late"),
    "validation": ("40 of 100 rows fail", "Data Docs", "All partitions"),
}
CONTRAST = """() => {
    const light = colour => {
        const [red, green, blue] = colour.match(/[0-9.]+/g).map(part => (part / 255) ** 2.2);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05;
    };
    const style = getComputedStyle(document.body);
    const [a, b] = [light(style.color), light(style.backgroundColor)];
    return Math.max(a, b) / Math.min(a, b);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", list(SHOWS))
def test_a_page_is_readable_and_asks_for_nothing(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[name].as_uri())
    page.wait_for_load_state("networkidle")
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.title() != "run" and page.locator("body script, body img[src^=http]").count() == 0
    text = " ".join(page.inner_text("body").split()).lower()
    for shown in SHOWS[name]:
        if not shown.startswith("Status"):
            assert shown.lower() in text, shown
    assert page.evaluate(CONTRAST) > 7
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.close()


def test_the_links_between_the_pages_lead_somewhere(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["validation"].as_uri())
    page.get_by_role("link", name="Data Docs").click()
    page.wait_for_url(pages["docs"].as_uri())
    page.get_by_role("link", name="All partitions").click()
    page.wait_for_url(pages["index"].as_uri())
    page.get_by_role("link", name=DAY.key).click()
    page.get_by_role("link", name="What was made of it").click()
    page.wait_for_url(pages["validation"].as_uri())


def test_marks_and_details_look_as_they_should(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["docs"].as_uri())
    marks = page.locator("i.fas").first.evaluate("one => getComputedStyle(one, '::before').content")
    assert marks == '"✗"'
    details = page.get_by_text("Great Expectations Version")
    assert not details.is_visible()
    page.get_by_text("Show more info").click()
    assert details.is_visible()
    page.goto(pages["profile"].as_uri())
    drawn = page.locator("td svg path").first.bounding_box()
    assert drawn is not None and drawn["width"] > 50 and drawn["height"] > 10
