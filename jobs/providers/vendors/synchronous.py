"""The half of an adapter that a vendor has no use for when it answers at once.

There is no task that could be polled or cancelled, and nothing can be asked about a lost request.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from jobs.providers.adapter import Account, Page, Ref, Request, Response


class Synchronous:
    poll_seconds = 2.0
    models: Mapping[str, str] = {}

    def ref(self, _external_id: str, _model: str) -> Ref | None:
        return None

    def poll(self, _ref: Ref, _account: Account) -> Request | None:
        return None

    def cancel(self, _ref: Ref, _account: Account) -> Request | None:
        return None

    def find(self, _account: Account) -> Request | None:
        return None

    def listed(self, _since: datetime, _response: Response, _account: Account) -> Page:
        return Page()
