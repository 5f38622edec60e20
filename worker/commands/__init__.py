"""The commands of `rowmill`, one module per group; see worker/cli.py."""
