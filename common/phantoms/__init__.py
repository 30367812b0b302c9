"""Deterministic synthetic images for demonstrations, tests and studies; none of them is a patient."""
