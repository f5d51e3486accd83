"""What a run holds, measured, claimed, drawn and reported."""
