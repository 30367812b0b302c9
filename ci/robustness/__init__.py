"""Odd inputs, and what becomes of them."""
