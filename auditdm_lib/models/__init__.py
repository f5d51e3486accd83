"""Models: asked for answers, sampled for texts, judging."""
