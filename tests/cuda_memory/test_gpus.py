"""The GPU catalog."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reportgen.cuda_memory import CudaMemoryError, catalog, find_gpu, user_gpu

MIB = 1 << 20


def test_the_catalog_has_at_least_forty_gpus_and_a_source_for_each_figure() -> None:
    cards = catalog()
    assert len(cards) >= 40
    assert len({card.name for card in cards}) == len(cards)
    for card in cards:
        assert card.usable_bytes > 1 << 32
        assert card.usable_basis in ("measured", "approximate", "rated")
        assert card.usable_source
        assert card.rates_source


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("A100", "A100-80GB"),
        ("a100-80gb", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("Tesla T4", "T4"),
        ("rtx3090", "RTX 3090"),
        ("GeForce RTX 4090", "RTX 4090"),
        ("h100", "H100-80GB"),
    ],
)
def test_a_gpu_is_found_by_any_of_its_names(name: str, found: str) -> None:
    assert find_gpu(name).name == found


def test_measured_gpus_have_the_memory_that_torch_reports() -> None:
    assert find_gpu("A100-80GB").usable_bytes == 81040 * MIB
    assert find_gpu("H200").usable_bytes == 143156 * MIB


def test_an_unknown_gpu_raises_with_the_nearest_name() -> None:
    with pytest.raises(CudaMemoryError, match="unknown GPU 'A1000'") as caught:
        find_gpu("A1000")
    assert "A100" in caught.value.hint


def test_a_user_gpu_requires_a_positive_size() -> None:
    assert user_gpu("lab", 24 << 30).usable_basis == "given"
    with pytest.raises(CudaMemoryError, match="must be positive"):
        user_gpu("lab", 0)


def test_the_catalog_does_not_import_torch() -> None:
    code = (
        "import sys; import reportgen.cuda_memory as m; m.find_gpu('T4'); m.Step();"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
