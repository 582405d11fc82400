"""The demo of risk: two heads and an autoencoder over the frozen model that `make demo` has trained, and one reason."""
