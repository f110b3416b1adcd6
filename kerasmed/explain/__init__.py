"""Explanations of any function from images to probabilities, as weights of superpixels."""
