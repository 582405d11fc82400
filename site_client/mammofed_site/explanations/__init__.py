"""Pages on why a model gives an exam its risk, and on what its neurons stand for. They stay at the site.

``command.py`` and ``find_exam.py`` are light; all that needs torch is loaded by name.
"""
