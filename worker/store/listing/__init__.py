"""Jobs as a list: filtered, sorted, a page at a time; over all tables, unfinished and finished.

`filter` says which jobs are meant, `tables` what the database knows of their tables. `selecting`
makes the SELECTs of it, `pages` reads and merges them, `telling` says what each job is, `following`
what changes.
"""

from worker.store.listing.filter import SORTS, Filter, Place, Sort
from worker.store.listing.pages import (
    MANY,
    MOST,
    BadCursor,
    BadSort,
    Page,
    TooSlow,
    counted,
    found,
    know_lanes,
    listed,
    tell,
)

__all__ = [
    "MANY",
    "MOST",
    "SORTS",
    "BadCursor",
    "BadSort",
    "Filter",
    "Page",
    "Place",
    "Sort",
    "TooSlow",
    "counted",
    "found",
    "know_lanes",
    "listed",
    "tell",
]
