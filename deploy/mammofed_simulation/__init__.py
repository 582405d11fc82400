"""The whole federation on one machine: the same apps, no sockets; and the demo."""
