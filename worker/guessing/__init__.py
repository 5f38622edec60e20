"""From a live table's description to a proposed map: pure, and never certain.

table.py        what the catalog says of a table; worker/store/catalog.py reads it
constraints.py  which words or numbers a CHECK lets into a column
vocabulary.py   how people call states, columns and urgencies: data only
states.py       the status column, its words, and what priorities become
columns.py      all the other columns
propose.py      one table's proposal
render.py       proposals as a commented map.toml
"""

from worker.guessing.propose import Proposal, propose, worth_sampling
from worker.guessing.render import render
from worker.guessing.table import Column, Table

__all__ = ["Column", "Proposal", "Table", "propose", "render", "worth_sampling"]
