"""Numbers with their intervals on pages."""

from ..metrics.statistics import Row

NUM_BOOTSTRAPS = 1000
"""Of the intervals of a study."""


def on_page(row: Row) -> Row:
    """Return a row of the table as the page shows it, each interval beside its number."""
    shown: Row = {}
    for name, value in row.items():
        if f"{name}_low" in row:
            shown[name.replace("_", " ")] = f"{value:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
        elif not name.endswith(("_low", "_high")):
            shown[name.replace("_", " ")] = value
    return shown
