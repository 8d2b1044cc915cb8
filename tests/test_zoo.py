"""The sweep over random architectures: it draws the same every time, and what it draws is tiny."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("timm")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import zoo
import zoo_draw
import zoo_outcomes
import zoo_tiny


def outcome(*failures: zoo_outcomes.Failure, **other: Any) -> zoo_outcomes.Outcome:
    values = {"name": "m", "source": "timm:m", "parameters": 7, "level": "whole"}
    known = {"verdict": "pass", "parity": "passed", "seconds": 1.0}
    return zoo_outcomes.Outcome(**{**values, **known, "failures": failures, **other})


def failure(alone: float | str | None, section: str = "onnx") -> zoo_outcomes.Failure:
    return zoo_outcomes.Failure(
        section=section, error="a branch on data", hint="use where", alone=alone
    )


@pytest.mark.parametrize("order", [zoo_draw.timm_order, zoo_draw.transformers_order])
def test_the_order_depends_on_the_seed(order: Any) -> None:
    assert list(islice(order(4), 50)) == list(islice(order(4), 50))
    assert list(islice(order(4), 50)) != list(islice(order(5), 50))


def test_at_most_three_models_per_module_of_timm() -> None:
    from timm.models._registry import _model_to_module

    modules = [_model_to_module[name] for name in zoo_draw.timm_order(4)]

    assert max(map(modules.count, set(modules))) == 3


def test_at_most_one_model_type_per_folder_of_transformers() -> None:
    types = list(zoo_draw.transformers_order(4))

    assert not {"clip", "clip_text_model"} <= set(types)
    assert len(types) == len(set(types)) > 300


def test_a_tiny_bert_has_the_parameters_of_its_sizes() -> None:
    tiny = zoo_tiny.tiny_transformers("bert")

    width, vocabulary, positions, kinds, layers = 64, 512, 128, 2, 2
    embeddings = (vocabulary + positions + kinds) * width + 2 * width
    block = 4 * (width * width + width) + 2 * (width * width + width) + 4 * width
    head = width * width + width + 2 * width + vocabulary  # the decoder is tied
    assert tiny.level == "whole"
    assert tiny.parameters == embeddings + layers * block + head


def test_nested_configurations_are_reduced_and_keep_their_type() -> None:
    from transformers import CLIPConfig

    fields = zoo_tiny.tiny_fields(CLIPConfig(), "whole")

    assert fields["text_config"]["model_type"] == "clip_text_model"
    assert fields["text_config"]["hidden_size"] == fields["vision_config"]["hidden_size"] == 64
    assert fields["vision_config"]["image_size"] == 128  # four patches of 32 a side


def test_special_tokens_are_distinct_and_below_the_reduced_vocabulary() -> None:
    from transformers import GPT2Config, Qwen2VLConfig

    gpt = zoo_tiny.tiny_fields(GPT2Config(), "whole")
    qwen = zoo_tiny.tiny_fields(Qwen2VLConfig(), "whole")
    tokens = [value for key, value in qwen.items() if key.endswith("_token_id")]

    assert gpt["eos_token_id"] < gpt["vocab_size"] == 512
    assert len(set(tokens)) == len(tokens) >= 4
    assert max(tokens) < 512


def test_widths_of_connected_parts_match() -> None:
    from transformers import CONFIG_MAPPING

    fields = zoo_tiny.tiny_fields(CONFIG_MAPPING["unlimited_ocr_vision"](), "whole")
    given = fields["sam_config"]["downsample_channels"][-1]

    assert given == fields["encoder_config"]["hidden_size"] == 64


def test_small_fields_are_not_changed() -> None:
    from transformers import BertConfig

    small = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        vocab_size=99, max_position_embeddings=20,
    )  # fmt: skip

    assert zoo_tiny.tiny_fields(small, "whole") == {}


@pytest.mark.slow
def test_tiny_arguments_survive_the_manifest() -> None:
    arguments = zoo_tiny.tiny_timm("crossvit_9_240").arguments

    assert yaml.safe_load(yaml.safe_dump(arguments)) == arguments
    assert "depth" in arguments


def test_a_tiny_vision_transformer_has_two_blocks_and_a_small_image() -> None:
    assert zoo_tiny.tiny_timm("vit_tiny_patch16_224").arguments == {"depth": 2, "img_size": 64}


def test_a_part_of_another_architecture_has_no_model_class() -> None:
    with pytest.raises(zoo_tiny.NotTiny, match=zoo_tiny.NO_CLASS):
        zoo_tiny.tiny_transformers("t5_gemma_module")


def test_a_model_that_cannot_be_reduced_is_an_error_with_its_size() -> None:
    with pytest.raises(zoo_tiny.NotTiny, match="M parameters"):
        zoo_tiny.tiny_timm("vgg16_bn")


@pytest.mark.parametrize(
    ("alone", "ours"), [(2.5, True), (None, True), ("RuntimeError: data-dependent", False)]
)
def test_a_failure_is_ours_unless_pytorch_fails_too(alone: float | str | None, ours: bool) -> None:
    assert outcome(failure(alone)).complete is not ours


def test_the_summary_of_a_sweep() -> None:
    outcomes = [
        outcome(),
        outcome(failure("RuntimeError: no"), parity=""),
        outcome(failure(1.0, ""), verdict="", parity=""),
        outcome(parity="vacuous"),
    ]

    words = "\n".join(zoo_outcomes.summary(outcomes, []))

    assert "3 of 4 (75.0 %) have a report" in words
    assert "3 of 4 (75.0 %) have no failed section that PyTorch" in words
    assert "2 of 4 (50.0 %) have no failed section at all" in words
    assert "ours: model 1" in words
    assert "no file 2, passed 1, vacuous 1" in words


def test_an_outcome_survives_a_round_trip_through_the_cache(tmp_path: Path) -> None:
    import json
    from dataclasses import asdict

    first, second = outcome(failure(None)), outcome(failure(1.0))
    lines = "".join(json.dumps(asdict(one)) + "\n" for one in (first, second))
    (tmp_path / "outcomes.jsonl").write_text(lines)

    assert zoo.cached_outcomes(tmp_path) == {"m": second}


def test_the_error_line_of_a_build_is_parsed() -> None:
    found = zoo.failure_of_build("reportgen: no inputs (of 3) run (name them under 'inputs')")

    assert found["error"] == "no inputs (of 3) run"
    assert found["hint"] == "name them under 'inputs'"


def test_the_manifest_of_a_model_has_a_target_and_no_inputs(tmp_path: Path) -> None:
    from reportgen.manifest import load_manifest

    drawn = zoo_draw.Drawn(
        name="timm-resnet18", source="timm:resnet18", arguments={"layers": [2, 2]},
        level="layers", parameters=7,
    )  # fmt: skip

    manifest = load_manifest(zoo.write_manifest(drawn, tmp_path))

    assert [target.name for target in manifest.targets] == ["T4"]
    assert manifest.models[0].inputs == ()
    assert manifest.models[0].arguments == {"layers": [2, 2]}


def test_mend_keeps_fields_that_differ_from_the_defaults() -> None:
    from transformers import CONFIG_MAPPING

    default = CONFIG_MAPPING["paligemma"]()
    plain = zoo_tiny.tiny_fields(default, "whole")["text_config"]
    mended = zoo_tiny.tiny_fields(default, "whole", mend=True)["text_config"]
    assert "num_key_value_heads" not in plain
    assert mended["num_key_value_heads"] == default.text_config.num_key_value_heads == 1
    assert mended["hidden_size"] == plain["hidden_size"] == 64
