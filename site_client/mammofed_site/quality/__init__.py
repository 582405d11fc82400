"""The quality page of a prepared data set: what came in, what was refused and why, and what to look at.

tables → counts → charts, and tables → samples → thumbnails → sheets; ``page`` puts both into one HTML file.
"""
