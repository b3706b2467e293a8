"""Lightning tasks, optimizers, and the backpropagation baseline."""
