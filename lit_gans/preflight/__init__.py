"""What is refused, or warned of, before training starts."""
