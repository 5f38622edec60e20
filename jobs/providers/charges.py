"""What a call will cost and what it did: by the price table, or by a sum where the table is silent.

A model without a price is refused, unless an operator has said what to count for a call of one. A
price that left the table while a task ran doesn't lose its bill: the estimate stands for it.
"""

from __future__ import annotations

from decimal import Decimal

import structlog

from jobs.contract import Task
from jobs.providers.adapter import State
from jobs.providers.errors import ProviderError
from jobs.providers.prices import UNKNOWN_PRICE, Price, PriceTable, load_prices
from jobs.providers.registry import Provider

log = structlog.get_logger(__name__)

ONE = Decimal(1)
SOMETHING = Price(input=ONE, output=ONE, run_second=ONE, output_second=ONE, character=ONE, item=ONE)


class Charges:
    def __init__(self, prices: PriceTable | None = None, unknown: Decimal | None = None) -> None:
        """`unknown`: cents for a call of a model without a price; None refuses it."""
        self._prices = prices or load_prices()
        self._any = _AnyPrice(self._prices)
        self._unknown = unknown
        self._told: set[tuple[str, str]] = set()

    def estimate(self, provider: Provider, task: Task) -> tuple[str, Decimal]:
        """The model and what it will cost, if this can be made at all; else `ProviderError`."""
        adapter, account = provider.adapter, provider.account
        adapter.check(task, account, self._prices if self._unknown is None else self._any)
        model = adapter.model(task, account)
        try:
            return model, adapter.estimate(task, model, self._prices)
        except ProviderError as error:
            if self._unknown is None or error.failure.code != UNKNOWN_PRICE:
                raise
        self._tell(adapter.name, model, self._unknown)
        return model, self._unknown

    def cost(
        self, provider: Provider, model: str, state: State, task: Task | None, estimate: Decimal
    ) -> Decimal:
        """Of a task that ended. Whatever the price: what bills no unit costs nothing."""
        try:
            return provider.adapter.cost(model, state, self._prices, task)
        except ProviderError:
            billed = provider.adapter.cost(model, state, self._any, task)
            return estimate if billed else Decimal(0)

    def _tell(self, provider: str, model: str, cents: Decimal) -> None:
        if (provider, model) not in self._told:
            self._told.add((provider, model))
            log.warning("price.unknown", provider=provider, model=model, counted_cents=str(cents))


class _AnyPrice(PriceTable):
    """Tells what would be billed at all, and lets checks pass that only miss a price."""

    def __init__(self, known: PriceTable) -> None:
        self._known = known

    def of(self, provider: str, model: str) -> Price:
        try:
            return self._known.of(provider, model)
        except ProviderError:
            return SOMETHING
