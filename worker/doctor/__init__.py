"""`rowmill doctor`: what is wrong or may go wrong, with its evidence and what to do about it.

    worker/findings.py   every finding there is, as data
    checks.py            which function looks for which
    patient.py           what they look at, and their thresholds
    durability.py …      the checks, by subject: each takes a Patient and returns findings
    repairs.py           what `--repair` does
    examining.py         runs the checks: one that fails, or takes long, hides no other

The statements are in worker/store/health/.
"""

from __future__ import annotations

from worker.doctor.examining import Plan, examine, repair
from worker.doctor.patient import Limits
from worker.findings import FINDINGS, RESULT, SEVERITIES

__all__ = ["FINDINGS", "RESULT", "SEVERITIES", "Limits", "Plan", "examine", "repair"]
