"""What a worker pays with: the configured providers, and what they charge."""

from __future__ import annotations

from jobs.providers.charges import Charges
from jobs.providers.prices import load_prices
from jobs.providers.registry import Provider, build_providers
from worker.settings import Settings


def providers_of(settings: Settings) -> dict[str, Provider]:
    """Deployments set a key to nothing to say they have none; its lane waits for others."""
    keyed = {n: p for n, p in settings.providers.items() if p.api_key.get_secret_value()}
    return build_providers(keyed)


def charges_of(settings: Settings) -> Charges:
    """Raises `ValueError` for a price list that can't be read."""
    own = [settings.prices] if settings.prices else []
    try:
        prices = load_prices(*own)
    except ValueError as error:
        raise ValueError(f"ROWMILL_PRICES: {error}") from error
    return Charges(prices, settings.unknown_price)
