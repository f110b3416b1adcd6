"""One training on one device or several, of one machine or several."""
