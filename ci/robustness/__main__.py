"""Print what becomes of odd inputs, or of good ones: ``python -m ci.robustness``."""

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import fire

from common.files import write_text

from .. import ROOT
from . import ct, dicom, films, listings, mr
from .good import Found, look_at_good_images
from .inputs import Input
from .judging import ABORTED, WRONG, Verdict, judge, with_all_sequences

INPUTS: Mapping[str, Sequence[Input]] = {
    "CT": [*ct.INPUTS, *dicom.INPUTS, *listings.INPUTS],
    "MR": mr.INPUTS,
    "X-ray": films.INPUTS,
}
"""By modality, as recipes call it."""

MAX_WARNED = 0.02
"""Share of good images that may be warned of."""

PAGE = ROOT / "docs" / "robustness.md"

INTRODUCTION = """\
# What becomes of odd inputs

`python -m ci.robustness --write` wrote this page: {inputs} inputs that are malformed, or odd and good, were listed
together and loaded by a bundle of their modality.

- **Refused**: left out of the run with a sentence that says why, while the others are done.
- **Right**: taken without a word; each voxel of the image and its masks lies where it belongs and has its value.
- **Warned**: the same, with a remark that stands in the log and in the report.

{totals}
"""


def robustness(write: bool = False, real_dir: str = "") -> None:
    """Print what becomes of each odd input, and totals.

    Args:
        write: also write ``docs/robustness.md``.
        real_dir: print instead how many good images are refused or warned of: those in folders of this one, see
            ``good.data_sets_in``, and all demonstrations.

    Raises:
        SystemExit: if something else becomes of an input than has to, a good image is refused, or more than 2 % are
            warned of.
    """
    with tempfile.TemporaryDirectory() as folder:
        if real_dir:
            _look(list(look_at_good_images(Path(real_dir), Path(folder))))
            return
        verdicts = {
            modality: list(judge(inputs, with_all_sequences(modality), Path(folder) / modality))
            for modality, inputs in INPUTS.items()
        }
    print(page := page_of(verdicts), end="")
    if write:
        write_text(PAGE, page)
    others = [each for modality in verdicts.values() for each in modality if not each.foreseen]
    if others:
        raise SystemExit("\n".join(f"{o.input.name}: expected {o.input.outcome}, got {o.outcome}" for o in others))


def _look(found: Sequence[Found]) -> None:
    """Print what was said of good images."""
    for each in found:
        print(f"{each.name}: {each.cases} cases, {len(each.refused)} refused, {len(each.warned)} warned")
        for case, words in {**each.refused, **each.warned}.items():
            print(f"    {case}: {words}")
    cases, refused, warned = (
        sum(n) for n in zip(*((f.cases, len(f.refused), len(f.warned)) for f in found), strict=True)
    )
    print(f"all: {cases} cases, {refused} refused, {warned} warned ({warned / cases:.1%})")
    if refused or warned > MAX_WARNED * cases:
        raise SystemExit(f"expected none refused and at most {MAX_WARNED:.0%} warned.")


def page_of(verdicts: Mapping[str, Sequence[Verdict]]) -> str:
    """Return totals and a table of verdicts by modality, as Markdown."""
    counts = Counter(each.outcome for modality in verdicts.values() for each in modality)
    totals = [f"{outcome} {counts[outcome]}" for outcome in ("refused", "right", "warned", WRONG, ABORTED)]
    lines = [INTRODUCTION.format(inputs=counts.total(), totals=", ".join(totals).capitalize() + ".")]
    lines += ["| images | input | outcome | what is said |", "|---|---|---|---|"]
    for modality, each in verdicts.items():
        lines += [f"| {modality} | {v.input.name} | {v.outcome} | {_cell(v.said)} |" for v in each]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return a text for a table, without what libraries say of a file that cannot be read."""
    short = re.sub(r"(cut off|one that cannot|cannot be read) \(.*", r"\1.", text)
    return short.replace("|", r"\|").replace("<", "&lt;").replace("`", "")


if __name__ == "__main__":
    fire.Fire(robustness)
