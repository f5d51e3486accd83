"""The audit: the pictures, the auditors that write probes, and the panel of target and references that judges them."""
