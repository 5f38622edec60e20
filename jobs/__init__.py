"""What the work is: handlers, providers, and the contract between them and the worker."""
