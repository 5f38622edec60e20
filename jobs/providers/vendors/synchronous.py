"""The half of an adapter that a vendor has no use for when it answers at once.

There is no task that could be polled or cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobs.providers.adapter import Account, Ref, Request
from jobs.providers.vendors.unlisted import Unlisted


class Synchronous(Unlisted):
    poll_seconds = 2.0
    models: Mapping[str, str] = {}

    def ref(self, _external_id: str, _model: str) -> Ref | None:
        return None

    def poll(self, _ref: Ref, _account: Account) -> Request | None:
        return None

    def cancel(self, _ref: Ref, _account: Account) -> Request | None:
        return None
