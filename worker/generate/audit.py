"""rowmill.audit_<platform>(): what an operator did, in the platform's own records (audit.sql).

Called by the trigger on rowmill.actions, see sql/functions/audit.sql.
"""

from __future__ import annotations

from worker.generate.rules import statements, with_relation
from worker.maps import Platform

_ACTION = (
    "action AS (SELECT p_action.id, p_action.at, p_action.who, p_action.action, p_action.subject,\n"
    "                       p_action.source, p_action.row_key, p_action.detail)"
)


def audit_function(platform: Platform) -> str:
    """Makes it, or takes it away where the platform has no such rule (any more)."""
    sql = platform.rules.get("audit")
    if sql is None:
        return drop_audit(platform.map.platform)
    body = "".join(f"\n    {with_relation(s, _ACTION)};" for s in statements(sql))
    return f"""CREATE OR REPLACE FUNCTION rowmill.audit_{platform.map.platform}(p_action rowmill.actions)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $rowmill$
#variable_conflict use_column
BEGIN{body}
END $rowmill$"""


def drop_audit(platform: str) -> str:
    return f"DROP FUNCTION IF EXISTS rowmill.audit_{platform}(rowmill.actions)"
