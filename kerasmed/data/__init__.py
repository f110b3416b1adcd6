"""Images: reading, caching, fingerprints, phantoms and the split into roles."""
