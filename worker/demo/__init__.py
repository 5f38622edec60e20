"""`rowmill demo`: both platforms, a small fleet, one killed worker, and the bill at the end.

plot.py      the story, step by step
platform.py  the two databases' schemas, a producer without rights, and the rows it inserts
fleet.py     the processes: sandbox provider and workers
screen.py    what is shown meanwhile
verdict.py   the checks behind the last table
"""

from worker.demo.plot import demo

__all__ = ["demo"]
