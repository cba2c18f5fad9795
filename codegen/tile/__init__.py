"""The tile program: where GPU and CPU meet."""
