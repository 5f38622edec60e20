"""SQL made from a platform's map: one set of triggers and functions per attached table.

Everything is text made of data, so it can be printed (`rowmill attach NAME --dry-run`), reviewed
and diffed; nothing else in Rowmill builds SQL.

    triggers.py   INSERT, UPDATE, DELETE, TRUNCATE on the platform's table → rowmill.queue
    start.py      rowmill.start_<source>(): claimed rows marked running, their input read;
                  rowmill.stops_<source>(): which running ones are to end
    settle.py     rowmill.settle_<source>(): results into the platform's tables, exactly once
    operate.py    rowmill.progress_, sweep_, and what operators do: retry_, requeue_, cancel_ …
    audit.py      rowmill.audit_<platform>(): operators' acts in the platform's own records
    allowances.py rowmill.reserve_, release_, reclaim_<source>(): what customers may use
    words.py      what these have in common: names, literals, values, assignments
    rules.py      the platform's own SQL files, embedded in the functions
"""

from __future__ import annotations

from worker.generate.allowances import allowance_functions, give_back_sql
from worker.generate.audit import audit_function, drop_audit
from worker.generate.operate import operate_functions
from worker.generate.settle import settle_function
from worker.generate.start import start_function, stops_function
from worker.generate.triggers import create_triggers, drop_triggers, trigger_functions
from worker.generate.words import FUNCTIONS, Column, Target

__all__ = [
    "Column",
    "Target",
    "attach_sql",
    "audit_function",
    "detach_sql",
    "drop_audit",
    "functions_sql",
    "give_back_sql",
]


def functions_sql(target: Target) -> list[str]:
    """Every function of one source; safe to run again after an upgrade."""
    return [
        *trigger_functions(target),
        start_function(target),
        *stops_function(target),
        settle_function(target),
        *operate_functions(target),
        *allowance_functions(target),
    ]


def attach_sql(target: Target) -> list[str]:
    return [*functions_sql(target), *drop_triggers(target), *create_triggers(target)]


def detach_sql(target: Target) -> list[str]:
    drops = [
        f"DROP FUNCTION IF EXISTS rowmill.{prefix}_{target.source.name} CASCADE"
        for prefix in FUNCTIONS
    ]
    return [*drop_triggers(target), *drops]
