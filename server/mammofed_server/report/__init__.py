"""The report of an evaluation: released numbers → facts → figures → one page, for `fl-server report`.

Only `charts.py` and `page.py` load matplotlib and jinja2; nothing of this package is imported before the command runs.
"""
