"""Figures into tables: nothing here starts, reads or waits for anything."""

import re
import statistics

# Figures of one workload: of each target one for each round, None where that round failed.
Figures = dict[str, list[float | None]]


def median(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def best(values: list[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def ratio(values: list[float | None], to: list[float | None]) -> float | None:
    """The median of the ratios within each round: a machine's clock drifts from one round to the next."""
    return median([a / b for a, b in zip(values, to) if a is not None and b])


def best_of_each_round(figures: Figures, peers: list[str]) -> list[float | None]:
    rounds = max((len(values) for values in figures.values()), default=0)
    rows = [[figures[peer][i] for peer in peers if i < len(figures.get(peer, []))] for i in range(rounds)]
    return [best(row) for row in rows]


def requests_of_wrk(output: str) -> tuple[int, int]:
    """How many requests wrk counted, and how many of them were answered with neither 2xx nor 3xx."""
    found = re.search(r"(\d+) requests in", output)
    if not found or "Socket errors" in output:
        raise ValueError(f"wrk did not get its answers:\n{output}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return int(found[1]), int(failed[1]) if failed else 0


def requests_of_h2load(output: str) -> tuple[int, int]:
    """How many requests h2load got an answer to, and how many of them were no 2xx."""
    found = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    lost = re.search(r"(\d+) errored, (\d+) timeout", output)
    if not found or not lost or any(int(count) for count in lost.groups()):
        raise ValueError(f"h2load did not get its answers:\n{output}")
    counts = [int(count) for count in found.groups()]
    return sum(counts), sum(counts[1:])


def figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def cell(values: list[float | None]) -> str:
    """The median and, where there was more than one round, the best in brackets."""
    if median(values) is None:
        return ""
    return figure(median(values)) + (f" ({figure(best(values))})" if len(values) > 1 else "")


def factor(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def table(
    titles: dict[str, str], figures: dict[str, Figures], states: dict[str, str], gates: list[str],
    notes: dict[tuple[str, str], str],
) -> list[list[str]]:
    """Head and rows. `states` has every target in order: "" or why it has no figures at all; `notes` says why one is missing."""
    peers = [target for target in states if target not in gates]
    head = ["", *states]
    head += [f"{gate} / best peer" for gate in gates] if peers else []
    head += [f"{gate} / {gates[0]}" for gate in gates[1:]]
    rows = [head]
    for workload, title in titles.items():
        found = figures.get(workload, {})
        row = [title]
        for target, state in states.items():
            note = notes.get((workload, target), "")
            row.append(state or cell(found.get(target, [])) or note)
        against = best_of_each_round(found, peers)
        row += [factor(ratio(found.get(gate, []), against)) for gate in gates] if peers else []
        row += [factor(ratio(found.get(gate, []), found.get(gates[0], []))) for gate in gates[1:]]
        rows.append(row)
    return rows


def as_text(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [text.rjust(width) for text, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    return "\n".join(lines)
