"""The audit: pictures, probes, the panel that judges them, and who writes them."""
