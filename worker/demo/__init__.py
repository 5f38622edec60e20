"""`rowmill demo`: platforms in one database, a small fleet, one killed worker, and the bill at the end.

plot.py      the story, step by step
stage.py     what it plays on
platform.py  which platforms, their schemas, a producer without rights, and the rows it inserts
messages.py  a producer without a database
fleet.py     the processes: sandbox provider and workers
screen.py    what is shown meanwhile
progress.py  how far each table is
order.py     whether anything was claimed before what was more urgent
verdict.py   the checks behind the last table
pictures.py  another story, for the pictures of the README: `rowmill dev pictures`
"""

from worker.demo.platform import NoDemo
from worker.demo.plot import demo

__all__ = ["NoDemo", "demo"]
