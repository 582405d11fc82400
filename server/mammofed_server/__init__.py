"""The coordinator: decides who trains when and adds up what comes back. It never sees an image."""
