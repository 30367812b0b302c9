"""The MR sequences of a brain, and the words by which they are told."""

import re

SEQUENCES = ("t1", "t1ce", "t2", "flair")
"""In the order of the channels; ``t1ce`` is T1 after contrast agent."""

_GAP = r"[-_. +]*"
_FORMS = {
    "flair": rf"t2w?{_GAP}flair|flair{_GAP}t2w?|flair|t2f",
    "t1ce": "|".join(
        [
            r"ce-[a-z0-9]+(?:_[a-z0-9]+-[a-z0-9]+)*_t1w?",
            rf"t1w?{_GAP}(?:ce|c|gd|gad|gado|post|contrast|postcontrast)(?!{_GAP}op)",
            rf"(?:ce|gd|gad|post|contrast){_GAP}t1w?",
        ]
    ),
    "t1": rf"t1n|t1w?(?:{_GAP}pre)?|pre{_GAP}t1w?",
    "t2": r"t2w?",
    "label": r"seg",
}
_WORD = re.compile(
    rf"{_GAP}(?<![a-z0-9])(?:{'|'.join(f'(?P<{name}>{form})' for name, form in _FORMS.items())})(?![a-z0-9])",
    re.IGNORECASE,
)
_BIDS = re.compile(r"sub-[a-z0-9]+(_ses-[a-z0-9]+)?(?=_)", re.IGNORECASE)


def sequence_in(name: str) -> tuple[str | None, str]:
    """Return which sequence a file's name tells, or ``label`` where it says ``seg``, and the name without that.

    The last word counts, as what goes before is the name of a study or a patient. Words that belong together are one:
    ``T2_FLAIR`` is FLAIR; ``t1_post``, ``T1W-GD`` and ``ce-gad_T1w`` are T1 after contrast agent. Of a name in BIDS,
    subject and session remain.

    >>> sequence_in("flair-study_p1_T2_FLAIR")
    ('flair', 'flair-study_p1')

    Args:
        name: without ending.

    Returns:
        None where it tells none, with the name as it is.
    """
    words = list(_WORD.finditer(name))
    if not words:
        return None, name
    found = words[-1]
    bids = _BIDS.match(name)
    return found.lastgroup, bids[0] if bids else f"{name[: found.start()]}{name[found.end() :]}".strip("-_. +")


def known_sequence(word: str) -> str | None:
    """Return which sequence a word alone is, as ``modality`` in ``dataset.json`` has it, None for any other."""
    sequence, rest = sequence_in(word.strip())
    return sequence if sequence in SEQUENCES and not rest else None
