"""`rowmill watch`: status, live, full screen.

    available.py what it needs, said before anything is loaded
    reading.py   asks the database: at most one light statement at a time, with pauses
    kept.py      what was answered, and what is kept of it over time    pure
    lines.py     cells, bars, charts, and how a table fits a width      pure
    overview.py  the lines above the panels                         pure
    panels.py    what the panels say                                    pure
    listing.py   a panel on the screen: a cursor over lines
    dialogs.py   what opens above it: a job, a lane, a question, help
    acts.py      what keys do to the fleet
    screen.py    all of it put together
    terminal.py  a terminal taken, and always given back
    picture.py   the same screen as a picture, without a terminal

Only `rowmill watch` imports this: textual takes a fifth of a second to load.
"""
