"""LIME over any function from images to probabilities."""
