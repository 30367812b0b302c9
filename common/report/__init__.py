"""Pictures and one page of a run."""
