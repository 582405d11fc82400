"""One hospital: its data, its identity, its training. It never trusts the coordinator."""
