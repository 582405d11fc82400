"""`make demo`: three phantom hospitals train together on this machine, and a page that shows what came of it."""
