"""`reportgen init` writes a manifest that builds: the model runs on the inputs that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_spec
from torch import nn

from reportgen.dummy_inputs import guess_inputs, with_dummy_inputs
from reportgen.dummy_inputs.argument_hints import documented_ranks
from reportgen.dummy_inputs.candidate import tensor
from reportgen.dummy_inputs.config_sizes import Sizes
from reportgen.dummy_inputs.error_parsing import (
    excess_dims,
    expected_names,
    expected_sizes,
    resized,
)
from reportgen.dummy_inputs.from_config import options
from reportgen.dummy_inputs.from_transformers import ForwardParameters
from reportgen.dummy_inputs.manifest_template import _to_manifest, manifest_for_source
from reportgen.errors import ModelError
from reportgen.example_inputs import make_examples
from reportgen.manifest import InputSpec, Manifest, ModelSpec, load_manifest, parse_source
from reportgen.sources import Loaded, load_model

CODE = """
import torch
from torch import nn

def lenet():
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 10))
def dense(): return nn.Sequential(nn.Linear(13, 4), nn.BatchNorm1d(4))
def flat(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 4))
def lazy(): return nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def sound(): return nn.Conv1d(2, 4, 9)
def volume(): return nn.Conv3d(2, 4, 3)
def gru(): return nn.GRU(7, 5)
def bilinear(): return nn.Bilinear(3, 5, 2)

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.cells = nn.Embedding(50, 8), nn.LSTM(8, 6, batch_first=True)
    def forward(self, input_ids, mask): return self.cells(self.table(input_ids) * mask[..., None])

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 3), nn.Linear(7, 3)
    def forward(self, left, right, scale=1.0): return self.a(left) + self.b(right) * scale

class Baked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 3)
    def forward(self, x): return self.a(x).reshape(1, 3)

class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.ones(3))
    def forward(self): return self.value * 2

class Never(nn.Module):
    def forward(self, x): raise ValueError("never")
"""
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 8}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drafted(folder: Path, source: str) -> tuple[str, Manifest]:
    text = manifest_for_source(source)
    path = folder / "drafted.yaml"
    path.write_text(text)
    return text, load_manifest(path)


def runs(spec: ModelSpec, batch: int) -> bool:
    loaded = load_model(spec)
    with torch.no_grad():
        make_examples(spec, batch, 0).call(loaded.model)
    return True


def shapes(spec: ModelSpec) -> list[Any]:
    return [item.shape for item in spec.inputs]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("lenet", [("batch", 1, 28, 28)]),
        ("dense", [("batch", 13)]),
        ("flat", [("batch", 784)]),
        ("lazy", [("batch", 3, "height", "width")]),
        ("sound", [("batch", 2, 128)]),
        ("volume", [("batch", 2, 16, 32, 32)]),
        ("gru", [("steps", "batch", 7)]),
        ("bilinear", [("batch", 3), ("batch", 5)]),
        ("Tagger", [("batch", "tokens"), ("batch", "tokens")]),
        ("Two", [("batch", 5), ("batch", 7)]),
    ],
)
def test_inputs_are_found_by_the_layers_of_the_model(
    folder: Path, factory: str, expected: list[Any]
) -> None:
    text, manifest = drafted(folder, f"nets.py:{factory}")
    (spec,) = manifest.models
    assert shapes(spec) == expected
    assert spec.onnx.dynamic == ("batch",)
    assert runs(spec, 1)
    assert runs(spec, 4)
    assert text == manifest_for_source(f"nets.py:{factory}")


def test_ids_are_below_the_size_of_the_embedding(folder: Path) -> None:
    _, manifest = drafted(folder, "nets.py:Tagger")
    ids, mask = manifest.models[0].inputs
    assert (ids.dtype, ids.high) == ("int64", 50)
    assert (mask.low, mask.high) == (1, 2)


@pytest.mark.slow
def test_a_fixed_batch_size_stays_a_number(folder: Path) -> None:
    text, manifest = drafted(folder, "nets.py:Baked")
    assert shapes(manifest.models[0]) == [(1, 5)]
    assert manifest.models[0].onnx.dynamic == ()
    assert "the model ran with one batch size only" in text


def test_a_forward_without_arguments_has_no_inputs(folder: Path) -> None:
    _, manifest = drafted(folder, "nets.py:Constant")
    assert manifest.models[0].inputs == ()


def test_a_model_that_never_runs_is_an_error_with_its_message(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no inputs were found .* ValueError: never") as caught:
        manifest_for_source("nets.py:Never")
    assert "`inputs` in a manifest" in caught.value.hint


def test_a_generated_manifest_begins_with_the_line_for_editors(folder: Path) -> None:
    text, manifest = drafted(folder, "nets.py:dense")
    assert text.startswith("# yaml-language-server: $schema=")
    assert "reportgen schema manifest >" in text.splitlines()[1]
    assert (manifest.title, manifest.targets[0].name) == ("dense", "T4")


def test_the_manifest_of_a_torchvision_model_has_dynamic_image_sizes(folder: Path) -> None:
    _, manifest = drafted(folder, "torchvision:squeezenet1_1")
    (spec,) = manifest.models
    assert shapes(spec) == [("batch", 3, "height", "width")]
    assert spec.dims == {"height": 224, "width": 224}
    assert runs(spec, 2)


def test_the_manifest_of_a_timm_model_has_the_configured_size(folder: Path) -> None:
    _, manifest = drafted(folder, "timm:test_resnet")
    (spec,) = manifest.models
    assert shapes(spec) == [("batch", 3, "height", "width")]
    assert spec.dims == {"height": 160, "width": 160}
    assert runs(spec, 2)


def test_the_manifest_of_a_transformers_configuration(folder: Path) -> None:
    values = {**SIZES, "model_type": "bert", "vocab_size": 30}
    (folder / "config.json").write_text(json.dumps(values))
    _, manifest = drafted(folder, "transformers:./config.json")
    (spec,) = manifest.models
    assert [(i.name, i.keyword, i.high) for i in spec.inputs] == [("input_ids", True, 30)]
    assert spec.dims == {"tokens": 128}
    assert runs(spec, 2)


def test_the_manifest_of_an_exported_program_has_the_inputs_of_the_file(folder: Path) -> None:
    net = nn.Linear(4, 2)
    shape = {"input": {0: torch.export.Dim("batch", max=64)}}
    program = torch.export.export(net, (torch.ones(3, 4),), dynamic_shapes=shape)
    torch.export.save(program, folder / "net.pt2")
    text, manifest = drafted(folder, "net.pt2")
    (spec,) = manifest.models
    assert shapes(spec) == [("batch", 4)]
    assert "mode was fixed at export" in text
    assert runs(spec, 5)


def guessed(source: str, **arguments: Any) -> tuple[ModelSpec, tuple[str, ...]]:
    spec = make_spec().model_copy(
        update={"source": parse_source(source, Path.cwd()), "arguments": arguments}
    )
    return with_dummy_inputs(spec, load_model(spec))


def by_name(spec: ModelSpec) -> dict[str | None, InputSpec]:
    return {item.name: item for item in spec.inputs}


@pytest.mark.parametrize(
    ("source", "arguments", "names"),
    [
        ("transformers:gpt2", {"n_embd": 8, "n_layer": 1, "n_head": 2}, ["input_ids"]),
        (
            "transformers:t5",
            {"d_model": 8, "num_layers": 1, "num_heads": 2, "d_ff": 8, "d_kv": 4},
            ["input_ids", "decoder_input_ids"],
        ),
        ("transformers:vit", SIZES, ["pixel_values"]),
        (
            "transformers:whisper",
            {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 60000,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2},
            ["input_features", "decoder_input_ids"],
        ),
        ("transformers:wav2vec2", {**SIZES, "num_conv_pos_embedding_groups": 2}, ["input_values"]),
        ("transformers:audio-spectrogram-transformer", SIZES, ["input_values"]),
        (
            "transformers:clip",
            {"text_config": SIZES, "vision_config": SIZES},
            ["input_ids", "pixel_values"],
        ),
        ("transformers:layoutlm", SIZES, ["input_ids"]),
        (
            "transformers:decision_transformer",
            {"hidden_size": 8, "n_layer": 1, "n_head": 2},
            ["states", "actions", "returns_to_go", "timesteps"],  # it does not read the rewards
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_inputs_of_transformers_models_are_derived(
    source: str, arguments: dict[str, Any], names: list[str]
) -> None:
    spec, notes = guessed(source, **arguments)
    assert [item.name for item in spec.inputs] == names
    assert "the manifest specifies no inputs; they were derived from the model" in notes


def test_sizes_come_from_the_configuration() -> None:
    spec, _ = guessed("transformers:vit", **SIZES, image_size=32, patch_size=8, num_channels=1)
    assert shapes(spec) == [("batch", 1, 32, 32)]
    spec, _ = guessed("transformers:bert", **SIZES, vocab_size=77, max_position_embeddings=10)
    assert (by_name(spec)["input_ids"].shape, by_name(spec)["input_ids"].high) == (("batch", 8), 77)


def test_the_number_of_placeholder_tokens_is_learned_from_the_error() -> None:
    text = {**SIZES, "model_type": "llama", "num_key_value_heads": 2, "vocab_size": 100}
    vision = {**SIZES, "model_type": "clip_vision_model", "image_size": 28, "patch_size": 14,
              "num_hidden_layers": 2}  # fmt: skip
    spec, _ = guessed(
        "transformers:llava", text_config=text, vision_config=vision, image_token_index=99,
        vision_feature_layer=-1,
    )  # fmt: skip
    inputs = by_name(spec)
    assert inputs["pixel_values"].shape == ("batch", 3, 28, 28)
    assert (inputs["input_ids"].shape, inputs["input_ids"].low) == (("batch", 4), 99)


TINY_TEXT = {**SIZES, "vocab_size": 50, "max_position_embeddings": 20}


@pytest.mark.parametrize(
    ("source", "arguments", "expected"),
    [
        (  # a question cannot be left out of the text
            "transformers:splinter",
            {**TINY_TEXT, "question_token_id": 44},
            {"input_ids": ("batch", 18)},
        ),
        (  # an argument that the error speaks of but does not name
            "transformers:xmod",
            {**TINY_TEXT, "languages": ["en", "de"]},
            {"input_ids": ("batch", 18), "lang_ids": ("batch",)},
        ),
        (  # patches of images of any shape, with their shapes beside them
            "transformers:siglip2",
            {"text_config": TINY_TEXT, "vision_config": {**SIZES, "patch_size": 4}},
            {"pixel_values": ("batch", 16, 48), "spatial_shapes": ("batch", 2)},
        ),
        (  # patches that lie together, their channels last
            "transformers:inkling2_vision",
            {**SIZES, "hidden_size": 64, "projection_hidden_dim": 64, "text_hidden_size": 64},
            {"pixel_values": (64, 40, 40, 3), "image_grid_thw": (1, 3)},
        ),
        (  # several tokens of sound a step, beside the text
            "transformers:dia_decoder",
            {
                **TINY_TEXT,
                "head_dim": 8,
                "num_key_value_heads": 2,
                "cross_num_attention_heads": 2,
                "cross_num_key_value_heads": 2,
                "cross_head_dim": 8,
                "cross_hidden_size": 16,
            },
            {"input_ids": ("batch", 16, 9), "encoder_hidden_states": ("batch", 18, 16)},
        ),
        (  # arguments of which nothing is known but that an error names; their documented rank
            "transformers:rag",
            {
                "question_encoder": {"model_type": "dpr", **TINY_TEXT},
                "generator": {
                    "model_type": "bart",
                    "d_model": 8,
                    "vocab_size": 50,
                    "encoder_layers": 1,
                    "decoder_layers": 1,
                    "encoder_attention_heads": 2,
                    "decoder_attention_heads": 2,
                    "max_position_embeddings": 20,
                },
            },
            {"context_input_ids": ("batch", 18), "doc_scores": ("batch", 8), "n_docs": None},
        ),
        (  # regions of a picture, their width and their corners as the errors say
            "transformers:lxmert",
            {
                "hidden_size": 16,
                "num_attention_heads": 2,
                "intermediate_size": 8,
                "vocab_size": 50,
                "l_layers": 1,
                "r_layers": 1,
                "x_layers": 1,
                "visual_feat_dim": 6,
                "num_attr_labels": 5,
                "num_object_labels": 5,
                "num_qa_labels": 5,
            },
            {"visual_feats": ("batch", 16, 6), "visual_pos": ("batch", 16, 4)},
        ),
        (  # whole numbers by their declaration, where no name or size tells
            "transformers:jev",
            {
                "hidden_size": 16,
                "text_config": {"model_type": "qwen2", "num_key_value_heads": 2, **TINY_TEXT},
            },
            {"marks": ("batch", 16), "question_type_ids": ("batch", 16)},
        ),
        (  # arguments that the line reads which met None
            "transformers:blt_local_encoder",
            {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 20},
            {"patch_ids": ("batch", 16), "num_patches": None},
        ),
        (  # patches in a row beside a batch of one
            "transformers:paddleocr_vl_vision",
            {**SIZES, "image_size": 28},
            {"pixel_values": (1, 64, 3, 14, 14), "grid_thw": (1, 3)},
        ),
        (  # pictures alone: a grid of one time
            "transformers:glm4v_vision",
            {
                "hidden_size": 16,
                "depth": 1,
                "num_heads": 2,
                "intermediate_size": 8,
                "out_hidden_size": 8,
                "image_size": 28,
            },
            {"hidden_states": (64, 1176), "grid_thw": (1, 3)},
        ),
        (  # as many frames as a window holds
            "transformers:qwen3_asr_encoder",
            {
                "d_model": 8,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 8,
                "encoder_layers": 1,
                "output_dim": 8,
                "downsample_hidden_size": 8,
            },
            {"input_features": ("batch", 128, 100), "input_features_mask": ("batch", 100)},
        ),
        (  # spectra by their name, and a mask that has to be of booleans
            "transformers:gemma3n_audio",
            {
                "hidden_size": 16,
                "conf_num_attention_heads": 2,
                "conf_num_hidden_layers": 1,
                "sscp_conv_channel_size": [4, 2],
                "input_feat_size": 32,
            },
            {"audio_mel": ("batch", 32, 32), "audio_mel_mask": ("batch", 128)},
        ),
        (  # text alone, where no tiles of pictures are found before the tries end
            "transformers:mllama",
            {
                "text_config": {
                    "model_type": "mllama_text_model",
                    "pad_token_id": 0,
                    **TINY_TEXT,
                    "num_key_value_heads": 2,
                    "cross_attention_layers": [],
                },
                "vision_config": {
                    "model_type": "mllama_vision_model",
                    "hidden_size": 16,
                    "attention_heads": 2,
                    "intermediate_size": 8,
                    "num_hidden_layers": 1,
                    "num_global_layers": 1,
                    "intermediate_layers_indices": [0],
                    "image_size": 28,
                },
            },
            {"input_ids": ("batch", 18)},
        ),
        (  # rows of patches, for the product of matrices wants their width
            "transformers:molmo2_vision",
            {**SIZES, "image_size": [28, 28], "head_dim": 8, "num_key_value_heads": 2},
            {"pixel_values": ("batch", 4, 588)},
        ),
        (  # every sound in a row, with its length beside them
            "transformers:qwen2_5_omni_audio_encoder",
            {
                "d_model": 8,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 8,
                "encoder_layers": 1,
                "max_source_positions": 100,
                "output_dim": 8,
            },
            {"input_features": (128, 200), "feature_lens": ("batch",)},
        ),
        (  # embeddings that lie as a map
            "transformers:unlimited_ocr_vision_encoder",
            {**SIZES, "image_size": 28},
            {"patch_embeds": ("batch", 16, 8, 8)},
        ),
        (  # a part of a model, which no list of tasks holds
            "transformers:siglip_text_model",
            TINY_TEXT,
            {"input_ids": ("batch", 18)},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_specific_to_an_architecture_are_learned_from_errors(
    source: str, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    inputs = by_name(guessed(source, **arguments)[0])
    assert {name: inputs[name].shape for name in expected} == expected


def test_expected_sizes_are_parsed_and_resized_swaps_both_sizes() -> None:
    sound = tensor("input_features", "batch", 160, 80, keyword=True)
    error = RuntimeError("expected input[1, 160, 80] to have 80 channels, but got 160 channels")
    assert next(iter(expected_sizes(error, (sound,)))) == (160, 80)
    assert resized(sound, 160, 80).shape == ("batch", 80, 160)
    product = RuntimeError("mat1 and mat2 shapes cannot be multiplied (672x224 and 768x64)")
    assert next(iter(expected_sizes(product, (tensor("x", "batch", 672, 224),)))) == (224, 768)
    image = tensor("pixel_values", "batch", 3, 224, 224)
    assert {size for size, _ in expected_sizes(product, (image,))} == {224}
    assert {other for _, other in expected_sizes(product, (image,))} == {672, 768, 64}


class Session:
    """What a model of videos keeps between frames."""

    def __init__(self) -> None:
        self.frames: list[torch.Tensor] = []


class Tracker(torch.nn.Module):
    """A model that takes a session, as those of transformers that follow objects do."""

    def forward(self, session: Session, frame: torch.Tensor | None = None) -> list[torch.Tensor]:
        return [*session.frames, *([] if frame is None else [frame])]


def test_very_large_sizes_in_an_error_are_ignored() -> None:
    mask = tensor("mask", "batch", 1, 96, dtype="int64", keyword=True)
    error = RuntimeError("The size of tensor a (96) must match the size of tensor b (2304)")
    assert list(expected_sizes(error, (mask,))) == []


def test_an_argument_of_a_custom_class_is_unsupported() -> None:
    assert (
        ForwardParameters(Tracker(), Sizes(config=None)).unsupported_argument()
        == "a Session for 'session'"
    )


def test_a_generated_manifest_contains_fixed_values() -> None:
    grid = next(item for item in options("grid_thw", Sizes(config=None)) if item.values)
    assert _to_manifest(grid)["values"] == [1, 4, 16]


def test_excess_dims_of_a_concatenated_tensor() -> None:
    error = RuntimeError("Tensors must have same number of dimensions: got 4 and 3")
    assert excess_dims(error) == 1
    assert excess_dims(RuntimeError("got 4 and 3")) == 0


def test_documented_ranks_of_arguments() -> None:
    def forward() -> None:
        """A pass.

        sound (`torch.Tensor` of shape `(batch_size, 1, samples)`):
            The sound, as `other (x)` of shape `(1, 2)` has it.
        ids (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            The ids.
        flag (`bool`): none
        """

    assert documented_ranks(forward) == {"sound": 3, "ids": 1}


def test_arguments_that_the_failing_code_reads_are_expected() -> None:
    def forward(grid: Any = None, unread: Any = None) -> Any:
        return grid.sum()

    with pytest.raises(AttributeError) as caught:
        forward()
    assert expected_names(caught.value, ["unread", "grid"]) == ["grid"]
    assert expected_names(ValueError("you must specify grid"), ["unread", "grid"]) == ["grid"]
    assert expected_names(ValueError("something else"), ["unread", "grid"]) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("torchvision:mnasnet0_5", [("batch", 3, 224, 224)]),
        ("torchvision:quantized_shufflenet_v2_x0_5", [("batch", 3, 224, 224)]),
        ("torchvision:lraspp_mobilenet_v3_large", [("batch", 3, 520, 520)]),
        ("timm:test_efficientnet", [("batch", 3, 160, 160)]),
    ],
)
def test_inputs_of_library_models(source: str, expected: list[Any]) -> None:
    spec, _ = guessed(source)
    assert shapes(spec) == expected


@pytest.mark.slow
def test_an_optical_flow_model_takes_two_images() -> None:
    assert shapes(guessed("torchvision:raft_small")[0]) == [("batch", 3, 520, 960)] * 2


@pytest.mark.slow
def test_a_detector_takes_a_list_of_images() -> None:
    spec, notes = guessed("torchvision:ssdlite320_mobilenet_v3_large")
    (images,) = spec.inputs
    assert images.items is not None
    assert images.items[0].shape == (3, 320, 320)
    assert images.per_sample
    assert any("list of images" in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("torchvision:inception_v3", ("batch", 3, 299, 299)),
        ("torchvision:mc3_18", ("batch", 3, 16, 112, 112)),
        ("torchvision:vit_b_32", ("batch", 3, 224, 224)),
    ],
)
def test_the_image_size_is_that_of_the_default_weights(source: str, expected: Any) -> None:
    assert shapes(guessed(source)[0]) == [expected]


def test_inputs_in_the_manifest_are_kept() -> None:
    loaded = Loaded(model=nn.Linear(3, 2))
    spec = make_spec("x=batch,3")
    assert with_dummy_inputs(spec, loaded) == (spec, ())


def test_guessing_inputs_restores_the_model_and_the_random_state() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.BatchNorm1d(4)).eval()
    before, kind = torch.get_rng_state(), type(model[0])
    guess_inputs(make_spec(), Loaded(model=model))
    assert torch.equal(torch.get_rng_state(), before)
    assert type(model[0]) is kind


def test_a_model_without_weights_runs_on_meta() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(13, 4)).eval()
    found = guess_inputs(make_spec(), Loaded(model=model))
    assert [item.shape for item in found.inputs] == [("batch", 13)]


def test_names_in_generated_manifests_are_valid_folder_names(folder: Path) -> None:
    for source in ("timm:test_vit.r160_in1k", "nets.py:dense"):
        text, manifest = drafted(folder, source)
        assert re.fullmatch(r"[\w.-]+", manifest.models[0].name), text
