"""unime-kedro: hard-negative mining, training and auditable evaluation for universal multimodal embeddings."""

__version__ = "0.1.0"
