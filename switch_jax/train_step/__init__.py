"""What is compiled: the training step, its state, the loss and the rule for bad steps."""
