"""Product pages of shops, read by the platform's scraping rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError

from jobs.contract import (
    Context,
    Failed,
    Failure,
    FailureKind,
    Fetched,
    Job,
    JobEnds,
    Outcome,
    RetryLater,
    Succeeded,
    Yield,
)
from jobs.headers import allowed
from jobs.payload import Payload, invalid, takes
from jobs.product import Product, domain_of
from jobs.product_page import read_page
from jobs.registry import RetryPolicy, kind
from jobs.selectors import BadRule

HEADERS = {
    "user-agent": "Mozilla/5.0 (compatible; Rowmill)",
    "accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1",
}
PARSE_SECONDS = 20.0
DELAY_MS = 1000
PAGES = ("text/html", "application/xhtml+xml", "")
GONE = (404, 410)
BUSY = (429, 503)
LONGEST_WAIT = 3600.0


class ScrapingRule(Payload):
    """A row of the platform's `scraping_rules`."""

    domain: str = ""
    platform: str | None = None
    selectors: dict[str, Any] | None = None
    headers: Annotated[dict[str, str], AfterValidator(allowed)] | None = None
    delay_ms: int | None = Field(default=None, ge=0, le=3_600_000)
    is_active: bool | None = None


class ScrapePayload(Payload):
    url: str | None = None
    product_url: str | None = None


class ProductRow(Payload):
    original_url: str | None = None


class ScrapeInput(Payload):
    payload: ScrapePayload = ScrapePayload()
    product: ProductRow | None = None
    rule: dict[str, Any] | None = None


@kind("background:scrape_product", timeout=120, retry=RetryPolicy(base=10.0, cap=900.0))
@takes(ScrapeInput)
async def scrape_product(_job: Job, ctx: Context, given: ScrapeInput) -> Outcome:
    """Read a shop's product page: its data and its pictures."""
    row = given.product.original_url if given.product else None
    url = given.payload.url or given.payload.product_url or row
    if not url:
        return invalid("payload.url: there is no page to read")
    product = await scrape(ctx, url, rule_of(given.rule))
    return Succeeded(data={"product": product.as_json()})


def rule_of(row: Mapping[str, Any] | None) -> ScrapingRule | None:
    """Raises `JobEnds` for a rule that can't be followed."""
    try:
        return None if row is None else ScrapingRule.model_validate(row)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, ("rule", *problem["loc"])))
        raise JobEnds(invalid(f"{where}: {problem['msg']}", "rule")) from error


async def scrape(ctx: Context, url: str, rule: ScrapingRule | None) -> Product:
    """Raises `JobEnds` where there is no product to be had."""
    domain = (rule.domain if rule else "") or _host(url)
    if rule is not None and rule.is_active is False:
        raise JobEnds(
            invalid(f"the scraping rule of {domain} is not active: its pages are not read", "rule")
        )
    delay = DELAY_MS if rule is None or rule.delay_ms is None else rule.delay_ms
    if delay:
        await ctx.turn(f"scrape:{domain.lower()}", delay / 1000)
    page = await ctx.fetch(url, {**HEADERS, **_lower(rule.headers if rule else None)})
    _check(page)
    try:
        # In a process that can be killed: parsing is quadratic in how deep a page is nested.
        product = await ctx.compute(
            read_page,
            page.body,
            page.content_type,
            page.url,
            rule.selectors if rule else None,
            rule.platform if rule else None,
            timeout=PARSE_SECONDS,
        )
    except BadRule as error:
        raise JobEnds(invalid(f"the scraping rule of {domain}: {error}", "rule")) from error
    if product is None:
        message = f"there is no product on {page.url} that can be read: it needs a scraping rule"
        raise JobEnds(invalid(message, "no_product"))
    return product


def _host(url: str) -> str:
    try:
        host = domain_of(url)
    except ValueError:
        host = ""
    if not host or urlsplit(url).scheme not in ("http", "https"):
        raise JobEnds(invalid(f"{url[:200]!r} is not the address of a page"))
    return host


def _lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _check(page: Fetched) -> None:
    """Raises `JobEnds` for an answer that is no page."""
    status, code = page.status, f"http_{page.status}"
    said = f"{page.url} answered {status}"
    if status in BUSY and (wait := retry_after(page.headers.get("retry-after", ""))):
        failure = Failure(FailureKind.RATE_LIMIT, said, code, retry_after=wait)
        raise JobEnds(Yield(said, wait, failure))
    if status in (403, 408, 425, 429) or status >= 500:
        raise JobEnds(RetryLater(Failure(FailureKind.TRANSIENT, said, code)))
    if status in GONE:
        raise JobEnds(Failed(Failure(FailureKind.GONE, f"{said}: the page is gone", code)))
    if status != 200:
        raise JobEnds(invalid(said, code))
    if page.content_type.partition(";")[0].strip().lower() not in PAGES:
        raise JobEnds(invalid(f"{page.url} is {page.content_type!r}, not a page", "not_html"))


def retry_after(text: str) -> float | None:
    """Seconds, given as such or as a date."""
    if text.strip().isdecimal():
        return min(float(text), LONGEST_WAIT)
    try:
        wait = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(wait, LONGEST_WAIT) if math.isfinite(wait) and wait > 0 else None
