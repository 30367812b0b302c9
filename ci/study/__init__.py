"""Methods compared with their baselines and controls on phantoms."""
