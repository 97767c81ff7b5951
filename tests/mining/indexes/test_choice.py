import pytest

from unime_kedro.mining.indexes.choice import CORE_RATE, GPU_RATE, Work, choose
from unime_kedro.mining.indexes.options import IndexOptions

PAPER = Work(queries=662_000, candidates=1_000_000, dim=1536, cores=2, gpus=0)


def work(minutes, rate, gpus=0, cores=1):
    """A search that takes so long at a rate."""
    return Work(queries=int(minutes * 60 * rate / 2 / 1000 / 100), candidates=1000, dim=100, cores=cores, gpus=gpus)


def test_small_is_exact_even_with_gpus():
    assert choose(Work(3050, 2211, 128, 2, 8), IndexOptions())[0] == "flat"


@pytest.mark.parametrize(
    ("searched", "kind"),
    [
        (work(29, CORE_RATE), "flat"),
        (work(31, CORE_RATE), "ivf"),
        (work(31, CORE_RATE, cores=2), "flat"),
        (work(31, CORE_RATE, gpus=1), "gpu_flat"),
        (work(29, GPU_RATE, gpus=1), "gpu_flat"),
        (work(31, GPU_RATE, gpus=1), "gpu_ivf"),
        (work(31, GPU_RATE, gpus=2), "gpu_flat"),
        (PAPER, "ivf"),
    ],
)
def test_by_estimated_time(searched, kind):
    assert choose(searched, IndexOptions())[0] == kind


def test_inverted_lists_on_gpus_only_where_they_fit():
    large = Work(10_000_000, 33_000_000, 1536, cores=64, gpus=4)  # 47 GiB on each
    assert choose(large, IndexOptions(gpu_memory_gb=40.0))[0] == "ivf"
    assert choose(large, IndexOptions(gpu_memory_gb=60.0))[0] == "gpu_ivf"


def test_the_reason_has_the_numbers():
    kind, reason = choose(PAPER, IndexOptions())
    minutes = 2 * 662_000 * 1_000_000 * 1536 / (2 * CORE_RATE) / 60
    assert kind == "ivf"
    assert reason == (
        f"exact search of 662,000 query items x 1,000,000 candidates x 1536 takes about {minutes:,.0f} min on 2 cores, "
        "faiss sees no GPU; pool.index.flat_minutes is 30"
    )


def test_what_is_configured_is_taken():
    assert choose(PAPER, IndexOptions(kind="flat")) == ("flat", "as configured (pool.index.kind)")
