"""Loading models, and using them to answer questions, to sample probes, and to judge answers."""
