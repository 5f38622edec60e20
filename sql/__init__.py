"""Rowmill's SQL: data of the wheel, read with `importlib.resources.files("sql")`."""
