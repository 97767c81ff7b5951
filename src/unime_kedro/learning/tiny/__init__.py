"""The embedded tiny models: real Qwen2-VL, shrunk to about two million parameters, trained on mini-MMEB's world.

They stand in for a pretrained multimodal LLM where none can be downloaded. Their quality says nothing about the
paper's models.
"""
