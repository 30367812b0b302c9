"""Training objectives that MONAI does not have."""
