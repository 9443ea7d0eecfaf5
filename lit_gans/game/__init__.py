"""The engine: one step of the game, and what surrounds it."""
