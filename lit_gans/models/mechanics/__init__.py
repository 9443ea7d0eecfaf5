"""What surrounds the game, so that a paper's file holds the paper alone."""
