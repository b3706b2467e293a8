"""Training of text models: the masked denoiser and the causal guide that ships with it."""
