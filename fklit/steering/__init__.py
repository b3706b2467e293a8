"""Method 1: Feynman-Kac steering of pretrained diffusion models by rewards."""
