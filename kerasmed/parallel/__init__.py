"""One training on one device or on many, of one machine or of several."""
