"""The part of an adapter that a vendor without a list of tasks has no use for.

Nothing can be asked about a lost request.
"""

from __future__ import annotations

from datetime import datetime

from jobs.providers.adapter import Account, Page, Request, Response


class Unlisted:
    def find(self, _account: Account) -> Request | None:
        return None

    def listed(self, _since: datetime, _response: Response, _account: Account) -> Page:
        return Page()
