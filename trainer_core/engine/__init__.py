"""Floor 2: the training loop. Runs steps, moves between phases, obeys commands; knows no sockets."""
