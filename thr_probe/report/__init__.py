"""Figures, tables and the token viewer, bound into pages of HTML."""
