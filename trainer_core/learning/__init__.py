"""Floor 1: tensors. Predicts, judges and moves weights; knows no files, sockets, threads or clock."""
