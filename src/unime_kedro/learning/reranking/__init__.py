"""Training the reranker: a multimodal LLM that says whether a candidate is right, and which of several is best."""
