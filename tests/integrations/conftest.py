"""The page's snippets import programs that need not be here: test_snippets.py runs what it can."""

collect_ignore_glob = ["snippets/*.py"]
