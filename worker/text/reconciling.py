"""rowmill reconcile."""

from __future__ import annotations

from rich.console import Console

from worker.text.values import Row, money, new_console, table

IN_DOUBT = ("job", "step", "sent", " about", "verdict", "done", "why")
DIFFERENCES = ("job", "step", "task", "what", "here", "there")


def print_reconciled(report: Row) -> None:
    console = new_console()
    for provider in report["providers"]:
        _print_reconciled(console, provider)
    verdicts = ("found", "absent", "dropped")
    doubts = [doubt for provider in report["providers"] for doubt in provider["in_doubt"]]
    waiting = sum(d["verdict"] in verdicts and not d["done"] for d in doubts)
    if waiting and not report["applied"]:
        console.print(f"Nothing was changed: --apply would write down {waiting} of these calls.")
    if not report["left"]:
        console.print("Ledger and providers agree, where they can be asked.")


def _print_reconciled(console: Console, row: Row) -> None:
    asked = row["why"] if row["asked"] != "listed" else f"{row['tasks']} tasks"
    more = f" ({row['why']})" if row["asked"] == "listed" and row["why"] else ""
    console.print(f"{row['provider']}, since {row['since'][:19]}Z: {asked}{more}", soft_wrap=True)
    if row["in_doubt"]:
        console.print(table("Calls in doubt", IN_DOUBT, map(_in_doubt, row["in_doubt"])))
    if row["strangers"]["count"]:
        title = f"Tasks the ledger doesn't know: {row['strangers']['count']}"
        tasks = (
            (t["external_id"], t["created_at"][:19], t["phase"], ", ".join(t["models"]))
            for t in row["strangers"]["tasks"]
        )
        console.print(table(title, ("task", "made", "phase", "model"), tasks))
    if row["ended"]["count"]:
        console.print(f"Ended there, to be taken up by a worker: {row['ended']['count']}")
    if row["differences"]["count"]:
        title = f"Otherwise here than there: {row['differences']['count']}"
        lines = (
            (d["job"], d["step"], d["external_id"], d["what"], d["ours"], d["theirs"] or "gone")
            for d in row["differences"]["calls"]
        )
        console.print(table(title, DIFFERENCES, lines))


def _in_doubt(row: Row) -> tuple[str, ...]:
    return (
        row["job"],
        row["step"],
        row["intended_at"][:19],
        money(row["estimate_cents"]),
        row["verdict"],
        "yes" if row["done"] else "",
        row["why"],
    )
