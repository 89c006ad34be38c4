"""What other stores keep of what was deleted: one adapter each, run in an environment of its own."""
