"""Saved traces in, one tidy table with its uncertainty out; no model, no drawing."""
