"""Looking inside: knobs and user frames."""
