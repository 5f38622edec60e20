"""Provider adapters (pure) and the one runner that does their I/O."""
