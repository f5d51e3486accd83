"""AuditDM in notebooks: audit a vision-language model, cluster its failures, mend them, score it again."""

__version__ = "0.1.0"
