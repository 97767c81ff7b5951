"""Full-batch gradients in the memory of one chunk (GradCache: Gao et al. 2021, arXiv 2101.06983).

A contrastive loss needs the embeddings of the whole batch at once, but not its activations:

1. embed every chunk without a graph, remembering the state of the random numbers before each;
2. compute the loss on all embeddings, and d loss / d embedding;
3. embed every chunk again with a graph and the same random numbers, and send its share of that gradient back.

Gradients equal those of one large batch up to rounding, at the price of a second forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Chunk = TypeVar("Chunk")


class RandomState:
    """The state of torch's random numbers at the moment it is made, on the CPU and on every GPU in use."""

    def __init__(self) -> None:
        import torch

        self._cpu = torch.get_rng_state()
        started = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._gpus = torch.cuda.get_rng_state_all() if started else []

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Run a block with this state; afterwards random numbers go on where they were before the block."""
        import torch

        with torch.random.fork_rng(devices=range(len(self._gpus))):
            torch.set_rng_state(self._cpu)
            if self._gpus:
                torch.cuda.set_rng_state_all(self._gpus)
            yield


def cached_backward(
    encode: Callable[[Chunk], torch.Tensor],
    chunks: Sequence[Chunk],
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Compute a loss over the embeddings of all chunks and add its gradients to the parameters.

    What a chunk is is up to ``encode``: rows with or without pictures, of any number.

    Args:
        encode: Chunk -> (n_chunk, d) embeddings. It must give the same result for the same chunk and the same torch
            random numbers.
        chunks: The batch, in order; at least one.
        loss: (n, d) embeddings of all chunks, in order -> scalar. Parameters of its own get their gradients, too.

    Returns:
        The loss, a scalar without a graph.

    Raises:
        ValueError: If there are no chunks.
    """
    import torch

    if not chunks:
        raise ValueError("there are no chunks to embed")
    if len(chunks) == 1:  # nothing to save: one pass is enough
        value = loss(encode(chunks[0]))
        value.backward()
        return value.detach()
    states, parts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(RandomState())
            parts.append(encode(chunk))
    embeddings = torch.cat(parts).requires_grad_()
    value = loss(embeddings)
    value.backward()
    assert embeddings.grad is not None
    gradients = embeddings.grad.split([len(part) for part in parts])
    for chunk, state, gradient in zip(chunks, states, gradients, strict=True):
        with state.restored():
            again = encode(chunk)
        again.backward(gradient)
    return value.detach()
