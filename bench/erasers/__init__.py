"""What other stores keep of what was deleted: adapters, each run in an environment of its own."""
