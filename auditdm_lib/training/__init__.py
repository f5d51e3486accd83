"""Training of the auditor (self-imitation, GRPO) and rectification of the target."""
