"""Images: reading, caching, measurements, phantoms and the split into roles."""
