"""A trace for other programs: one row per token, or per completion as trainers read it."""
