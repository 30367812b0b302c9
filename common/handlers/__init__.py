"""Handlers that load weights, and turn the outputs of an evaluator into tables, pictures and a page."""
