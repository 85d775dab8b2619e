"""Models made of layers and objectives, binary weights, and optimisers of latent weights."""
