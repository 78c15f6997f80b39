"""The report of a run, as Markdown."""

from collections import Counter
from collections.abc import Iterator

from chaos.faults import Kind
from chaos.run import Result


def markdown(result: Result) -> str:
    """Write what was done, what came of it, and what is wrong, if anything."""
    return "\n".join([*_summary(result), *_answers(result), *_faults(result), *_events(result)])


def _summary(result: Result) -> Iterator[str]:
    plan, ledger = result.plan, result.ledger
    verdict = "nothing lost, nothing doubled" if not result.faults else "FAULTS WERE FOUND"
    yield f"**{verdict}**: seed {plan.seed}, {result.began_at}, {plan.duration_s / 60:.1f} minutes,"
    yield f"{plan.senders} senders, {len(result.events)} faults."
    yield ""
    yield "| counted | number |"
    yield "|---|---|"
    for what, count in result.outcome.counts.items():
        yield f"| {what} | {count} |"
    yield f"| attempts to send | {sum(ledger.answers.values())} |"
    yield f"| sent once more after success | {ledger.resent} |"
    yield ""
    yield "| time | seconds |"
    yield "|---|---|"
    yield f"| `/readyz` again after the last fault | {result.ready_after_s:.1f} |"
    yield f"| all acknowledged after the last fault | {result.acknowledged_after_s:.1f} |"
    yield f"| backlog drained after the last fault | {result.drained_after_s:.1f} |"
    for protocol in sorted(ledger.acknowledgements):
        silence_s, at_s = ledger.longest_silence(protocol, result.end_s)
        yield f"| longest without success, {protocol} | {silence_s:.1f} (from {at_s:.0f} s) |"
    outage_s, at_s = result.prober.longest_outage(result.end_s)
    asked = len(result.prober.answered) + len(result.prober.failures)
    part = 100 * len(result.prober.answered) / max(asked, 1)
    yield f"| longest without an answer to a search | {outage_s:.1f} (from {at_s:.0f} s) |"
    yield ""
    yield f"{part:.1f} % of {asked} searches, two a second, were answered."
    yield ""


def _answers(result: Result) -> Iterator[str]:
    yield "| sender | answer | times | slowest, s |"
    yield "|---|---|---|---|"
    slowest = result.ledger.slowest_s
    for (protocol, text), count in sorted(result.ledger.answers.items()):
        yield f"| {protocol} | {text} | {count} | {slowest[protocol, text]:.1f} |"
    yield ""


def _faults(result: Result) -> Iterator[str]:
    if result.faults:
        yield "What is wrong:"
        yield ""
        yield from (f"- {fault}" for fault in result.faults)
        yield ""


def _events(result: Result) -> Iterator[str]:
    suffered: Counter[tuple[str, Kind]] = Counter()
    for event in result.events:
        kind = event.fault.member.rstrip("-0123456789")
        suffered[kind, event.fault.kind] += 1
    yield "| member | " + " | ".join(Kind) + " |"
    yield "|---|" + "---|" * len(Kind)
    for member in sorted({member for member, _ in suffered}):
        yield f"| {member} | " + " | ".join(str(suffered[member, k] or "") for k in Kind) + " |"
    yield ""
    yield "<details><summary>Every fault, with its second</summary>"
    yield ""
    yield "| second | member | fault | lasted, s | |"
    yield "|---|---|---|---|---|"
    for event in result.events:
        fault = event.fault
        lasts = f"{fault.lasts_s:.1f}" if fault.lasts_s else ""
        yield f"| {event.at_s:.1f} | {fault.member} | {fault.kind} | {lasts} | {event.note} |"
    yield ""
    yield "</details>"
    yield ""
