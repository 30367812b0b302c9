"""Transforms that MONAI does not have; each is a pure function, and a dictionary transform where a config needs one."""
