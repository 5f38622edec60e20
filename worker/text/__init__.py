"""Reports as text for people; `--json` has all of it. One module per report, values.py for all."""
