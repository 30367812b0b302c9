"""The Python that bundles run: shared networks, samplers, engines and reports."""
