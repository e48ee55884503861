"""The tokens of completions, one by one: the viewer's page, and the same in the terminal."""
