"""The MR sequences of a brain."""

from collections.abc import Mapping, Sequence

SEQUENCES: Mapping[str, Sequence[str]] = {
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c", "t1gd"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f"),
}
"""Words by which file names tell the sequences, in the order of the channels; ``t1ce`` is T1 after contrast agent."""
