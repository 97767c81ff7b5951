"""The paper's figures, in percent, to stand beside one's own: UniME-V2, Tables 1, 3 and 4.

They are of other models than the embedded ones, on MMEB, on short captions (Flickr30K, COCO), long captions
(ShareGPT4V, Urban1K) and compositional captions (SugarCrepe). The paper gives no interval and no spread over seeds.
"""

from __future__ import annotations

#: where the figures are from
PAPER = "Gu et al., UniME-V2: MLLM-as-a-Judge for Universal Multimodal Embedding Learning, AAAI 2026, arXiv 2510.13515"

#: Table 1: names of the means in the table's order, as declared by the benchmark
TABLE_1_MEANS = ("classification", "vqa", "retrieval", "visual_grounding", "IND", "OOD", "all")
#: Table 1, MMEB: model -> figures in that order
TABLE_1: dict[str, tuple[float, ...]] = {
    "VLM2Vec Qwen2-VL-2B": (59.0, 49.4, 65.4, 73.4, 66.0, 52.6, 60.1),
    "VLM2Vec Qwen2-VL-7B": (62.6, 57.8, 69.9, 81.7, 72.2, 57.8, 65.8),
    "LLaVE LLaVA-OV-7B": (65.7, 65.4, 70.9, 91.9, 75.0, 64.4, 70.3),
    "QQMM LLaVA-OV-7B": (66.8, 66.8, 70.5, 90.4, 74.7, 65.6, 70.7),
    "UniME Qwen2-VL-2B": (59.0, 53.4, 64.9, 69.6, 65.5, 54.6, 60.6),
    "UniME Qwen2-VL-7B": (64.7, 59.0, 71.6, 82.7, 72.2, 61.4, 67.4),
    "UniME LLaVA-OV-7B": (66.8, 66.6, 70.5, 90.9, 74.6, 65.8, 70.7),
    "UniME-V2 Qwen2-VL-2B": (62.1, 56.3, 68.0, 72.7, 67.4, 58.9, 63.6),
    "UniME-V2 Qwen2-VL-7B": (64.0, 60.1, 73.1, 82.8, 72.0, 63.0, 68.0),
    "UniME-V2 LLaVA-OV-7B": (65.3, 67.6, 72.9, 90.2, 74.8, 66.7, 71.2),
}

#: Tables 3 and 4: names of their columns
MEASURES = ("MMEB", "short captions", "long captions", "compositional")
#: Table 3, reranking: row -> figures by :data:`MEASURES`
TABLE_3: dict[str, tuple[float, ...]] = {
    "UniME-V2 Qwen2-VL-2B": (63.6, 72.1, 93.4, 64.1),
    "UniME-V2 Qwen2-VL-2B + LamRA": (67.3, 76.4, 96.4, 87.4),
    "UniME-V2 Qwen2-VL-2B + UniME-V2-Reranker": (67.6, 76.4, 96.9, 94.8),
    "UniME-V2 Qwen2-VL-7B": (68.0, 76.4, 95.8, 73.0),
    "UniME-V2 Qwen2-VL-7B + LamRA": (69.1, 78.3, 97.2, 87.4),
    "UniME-V2 Qwen2-VL-7B + UniME-V2-Reranker": (69.6, 78.7, 97.5, 94.8),
}
#: Table 4, components (Qwen2-VL-2B): row -> figures by :data:`MEASURES`
TABLE_4: dict[str, tuple[float, ...]] = {
    "neither": (60.1, 63.4, 82.2, 60.0),
    "hard negatives": (61.6, 68.9, 89.8, 63.7),
    "hard negatives + soft scores": (63.6, 72.1, 93.4, 64.1),
}

#: benchmark -> row -> mean -> percent, for tables of results
PAPER_ROWS: dict[str, dict[str, dict[str, float]]] = {
    "MMEB": {model: dict(zip(TABLE_1_MEANS, row, strict=True)) for model, row in TABLE_1.items()}
}
