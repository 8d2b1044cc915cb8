"""Reduces architectures of timm and transformers: finds arguments for a small model.

transformers: fields of the configuration, nested ones too, are reduced by their names. If the model
does not build, fewer fields are reduced (`LEVELS`). timm: fewer blocks and a smaller image, if the
constructor has such arguments.
"""

from __future__ import annotations

import inspect
import itertools
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_PARAMETERS = 40_000_000
_WIDTH, _HEADS, _KEY_HEADS, _HEAD_WIDTH, _RANK = 64, 4, 2, 16, 32
_LAYERS, _VOCABULARY, _POSITIONS, _EXPERTS, _CHOSEN_EXPERTS = 2, 512, 128, 4, 2
_SECONDS = 60  # for one constructor
_SECTIONS = [2, 3, 3]  # of half a head width: time, height and width
LEVELS = ("whole", "inside", "deep", "layers", "default")
"""What is reduced, in the order of the attempts.

whole: everything; inside: everything except images; deep: everything except widths and heads;
layers: only layers and vocabulary; default: nothing.
"""

NO_CLASS = "no model class is made from it alone"
CANNOT = {
    "edgetam_vision_model": "its default backbone has other channels than its neck expects",
    "glm4v_text": "its rotary sections are fixed for heads of 64; the default is too large",
    "zoedepth": "its neck takes four stages of a backbone; the default is too large",
}
"""Model types that do not run in any small configuration, checked by hand."""


class NotTiny(Exception):
    """The architecture cannot be reduced; the message is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiny:
    """A reduced model: the manifest's arguments, what was reduced, and its parameters."""

    arguments: dict[str, Any]
    level: str
    parameters: int


# transformers -------------------------------------------------------------------------------


def tiny_transformers(model_type: str) -> Tiny:
    """The arguments for `transformers:<model_type>`.

    Raises:
        NotTiny: there is no default configuration, no model class, or no level builds.
    """
    from transformers import CONFIG_MAPPING

    from reportgen.errors import ModelError
    from reportgen.sources.from_transformers.architectures import class_of_config

    if model_type in CANNOT:
        raise NotTiny(CANNOT[model_type])
    try:
        config_class = CONFIG_MAPPING[model_type]
        default = config_class()
    except Exception as error:
        raise NotTiny(f"its default configuration: {_first_line(error)}") from error
    try:
        model_class = class_of_config(config_class, model_type)
        model_class._from_config  # noqa: B018 - raises ImportError if a dependency is missing
    except ModelError as error:
        raise NotTiny(NO_CLASS) from error
    except (ImportError, AttributeError) as error:
        raise NotTiny(_first_line(error)) from error

    def make(arguments: dict[str, Any]) -> Any:
        return model_class._from_config(config_class(**arguments))

    tries = ((level, tiny_fields(default, level)) for level in LEVELS)
    mended = ((f"{level}, mended", tiny_fields(default, level, mend=True)) for level in LEVELS[:-1])
    return _first_that_runs(f"transformers:{model_type}", make, tries, mended)


def tiny_fields(config: Any, level: str, *, mend: bool = False) -> dict[str, Any]:
    """The reduced fields of `config` as keyword arguments of its class; nested ones as dicts.

    `config` is not modified, and no field is increased. With `mend`, a nested configuration keeps
    the fields that differ from its class's defaults, and unset fields are set. It is used only if
    nothing else runs, so that earlier draws stay the same.
    """
    from transformers import PreTrainedConfig

    if level == "default":
        return {}
    values = {key: value for key, value in vars(config).items() if key in _fields_of(config)}
    vocabulary = _vocabulary_of(config)
    small: dict[str, Any] = {}
    for key, value in sorted(values.items()):
        if isinstance(value, PreTrainedConfig):
            inner = (_own_fields(value) if mend else {}) | tiny_fields(value, level, mend=mend)
            if inner:
                small[key] = {"model_type": value.model_type, **inner}
            continue
        made = _small(key, value, values, level)
        if made != value:
            small[key] = made
    small.update(_token_ids(values, vocabulary))
    return small | (_unset_fields(values, small) if mend else {})


def _unset_fields(values: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """Values for fields that the default does not set but the model reads."""
    found: dict[str, Any] = {}
    if values.get("num_experts_per_tok", 0) is None:
        found["num_experts_per_tok"] = _CHOSEN_EXPERTS
    rope = small.get("rope_parameters", values.get("rope_parameters"))
    if isinstance(rope, dict) and "mrope_section" not in rope:
        found["rope_parameters"] = {**rope, "mrope_section": _SECTIONS}
    return found


def _own_fields(config: Any) -> dict[str, Any]:
    """The plain fields of a nested configuration that differ from its class's defaults."""
    try:
        defaults = vars(type(config)())
    except Exception:  # the class has required fields and so no defaults
        defaults = {}
    plain = (bool, int, float, str, list, tuple, type(None))
    return {
        key: value
        for key, value in vars(config).items()
        if key in _fields_of(config) and isinstance(value, plain) and value != defaults.get(key)
    }


def _fields_of(config: Any) -> set[str]:
    from dataclasses import fields

    return {field.name for field in fields(config)}


def _vocabulary_of(config: Any) -> int | None:
    """The size of the vocabulary of `config` before it is reduced."""
    for part in (config, *(vars(config).get(k) for k in ("text_config", "decoder", "llm_config"))):
        size = vars(part).get("vocab_size") if part is not None else None
        if isinstance(size, int):
            return size
    return None


def _token_ids(values: dict[str, Any], vocabulary: int | None) -> dict[str, Any]:
    """Replace token ids beyond the reduced vocabulary by its last ids, all distinct.

    Unset ids of image, video and audio tokens are set too, because forward requires them.
    """
    most = min(_VOCABULARY, vocabulary or _VOCABULARY)
    free = itertools.count(most - 1, -1)
    small: dict[str, Any] = {}
    for key, value in sorted(values.items()):
        if re.search(r"(token_id|token_index|token_ids|_token)$", key) is None:
            continue
        absent = value is None and re.match(r"(image|video|audio)_token_", key) is not None
        if absent or (type(value) is int and value >= most):
            small[key] = next(free)
        elif isinstance(value, list) and any(isinstance(v, int) and v >= most for v in value):
            small[key] = [next(free) if v >= most else v for v in value]
    return small


def _most(limit: int) -> Callable[[Any, dict[str, Any]], Any]:
    return lambda value, _: min(value, limit)


def _image(value: Any, values: dict[str, Any]) -> Any:
    patch = values.get("patch_size")
    patch = patch if isinstance(patch, int) else 16
    side = 4 * patch if 8 <= patch <= 32 else 64
    if isinstance(value, dict):
        return {key: min(size, side) for key, size in value.items()}
    return [min(s, side) for s in value] if isinstance(value, list | tuple) else min(value, side)


def _feature_sizes(value: Any, _: dict[str, Any]) -> Any:
    """The sizes of a backbone's feature maps for the reduced image; the last one is 4 x 4."""
    return [[4 * 2**back] * 2 for back in range(len(value) - 1, -1, -1)]


def _key_heads(value: int, values: dict[str, Any]) -> int:
    heads = values.get("num_attention_heads")
    return _HEADS if value == heads else min(value, _KEY_HEADS)


def _numbers(limit: int) -> Callable[[Any, dict[str, Any]], Any]:
    return lambda value, _: [min(number, limit) for number in value]


def _within_layers(value: Any, _: dict[str, Any]) -> Any:
    """Layer indices within the reduced number of layers, with their order and count kept."""
    if isinstance(value, int):
        return max(-_LAYERS, min(value, _LAYERS - 1))
    ranks = {number: rank for rank, number in enumerate(sorted(set(value)))}
    return [min(ranks[number], _LAYERS - 1) for number in value]


def _rope(value: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """RoPE sections and factors for the reduced head width."""
    made: dict[str, Any] = {}
    for key, part in value.items():
        if isinstance(part, dict):
            made[key] = _rope(part, values)
        elif key == "mrope_section":
            made[key] = [max(1, number * (_HEAD_WIDTH // 2) // sum(part)) for number in part]
        elif key in ("short_factor", "long_factor"):
            made[key] = part[: _HEAD_WIDTH // 2]
        else:
            made[key] = part
    return made


_INT, _LIST = "int", "list"
_Rule = tuple[str, str, str, Callable[[Any, dict[str, Any]], Any]]
_RULES: tuple[_Rule, ...] = (  # (last level, kind, name, function); the first match applies
    ("layers", _INT, r"type_vocab_size|max_text_len|entity_type.*", lambda value, _: value),
    ("layers", _INT, r".*vocab_size|vocab_size_per_layer_input", _most(_VOCABULARY)),
    ("layers", _INT, r"first_k_dense_replace|num_dense_layers", _most(1)),
    ("layers", _INT, r"num_adapter_layers|num_kv_shared_layers", lambda value, _: value),
    ("layers", _INT, r"(.*_|n_|)layers?|.*_depth|depth|(num|encoder|decoder)_blocks",
     _most(_LAYERS)),
    ("layers", _LIST, r"depths?|num_block_repeats|stage_num_blocks|layer_depths|num_blocks",
     _numbers(_LAYERS)),
    ("layers", _LIST, r"deepstack_visual_indexes|fullatt_block_indexes|global_attn_indexes|"
     r"intermediate_hook_ids", _within_layers),
    ("layers", _INT, r"vision_feature_layer|insert_layer_id", _within_layers),
    ("layers", _LIST, r"vision_feature_layer", _within_layers),
    ("deep", _INT, r"num_experts_per_tok.*|moe_topk|moe_k|.*top_k_experts", _most(_CHOSEN_EXPERTS)),
    ("deep", _INT, r"(.*_|)(num|n)_(local_|routed_)?experts", _most(_EXPERTS)),
    ("deep", _INT, r"n_group|topk_group|(num|n)_shared_experts", _most(1)),
    ("deep", _INT, r"max_position_embeddings|n_positions|max_seq_len|n_ctx|seq_length|context_size",
     _most(_POSITIONS)),
    ("deep", _INT, r"max_(source|target)_positions", _most(100)),
    ("deep", _INT, r"sliding_window|attention_window|index_topk", _most(32)),
    ("deep", _INT, r"num_queries|num_query_tokens|num_latents|resampler_num_latents", _most(20)),
    ("deep", _INT, r"num_frames", _most(8)),
    ("deep", _INT, r"(pretrain_|)image_size|img_size", _image),
    ("deep", _LIST, r"(pretrain_|)image_size|img_size", _image),
    ("deep", "dict", r"image_size", _image),
    ("deep", "other", r"backbone_feature_sizes", _feature_sizes),
    ("deep", _INT, r"patch_size", _most(56)),  # larger values are image sizes of a nested part
    ("whole", "dict", r"rope_(parameters|scaling)", _rope),
    ("whole", _INT, r".*(key_value|kv)_heads|num_kv_heads", _key_heads),
    ("whole", _INT, r"mamba_(n|num)_heads", _most(8)),
    ("whole", _INT, r"(.*_|)(n_|num_|)heads?(?<!dim_head)(?<!d_head)", _most(_HEADS)),
    ("whole", _INT, r"qk_head_dim", _most(2 * _HEAD_WIDTH)),  # rotary and other half
    ("whole", _INT, r"rotary_dim", _most(_HEAD_WIDTH)),
    ("whole", _INT, r".*head_dim|d_kv|d_head|mamba_d_head|query_pre_attn_scalar",
     _most(_HEAD_WIDTH)),
    ("whole", _INT, r"(kv|q|o)_lora_rank", _most(_RANK)),
    ("whole", _INT, r"(.*_|)(hidden_size|hidden_dim|d_model|n_embd|embed_dim|embedding_size|"
     r"embedding_dim|emb_dim|hidden_sizes?|projection_dim|proj_dim|proj_size|intermediate_size|"
     r"ffn_dim|d_ff|d_inner|mlp_dim|n_inner|hidden_act_dim|dim_feedforward|lru_width|out_dim|"
     r"ffn_hidden_size|query_dim_|intermediate_dim)", _most(_WIDTH)),
    ("whole", _LIST, r"conv_dim|tdnn_dim", _numbers(32)),
    ("whole", _LIST, r"downsample_channels", _numbers(_WIDTH)),  # last: width of the next part
)  # fmt: skip


def _small(key: str, value: Any, values: dict[str, Any], level: str) -> Any:
    """`value` reduced by the first rule for `key`; unchanged if no rule applies."""
    kind = _kind_of(value)
    for until, rule_kind, name, make in _RULES:
        if rule_kind == kind and re.fullmatch(name, key):
            reach = "whole" if level == "inside" else level
            applies = LEVELS.index(reach) <= LEVELS.index(until)
            applies &= level != "inside" or make not in (_image, _feature_sizes)
            made = make(value, values) if applies else value
            return tuple(made) if isinstance(value, tuple) and made == list(value) else made
    return value


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return _INT
    if isinstance(value, list | tuple) and value and all(type(v) is int for v in value):
        return _LIST
    return "dict" if isinstance(value, dict) else "other"


# timm ---------------------------------------------------------------------------------------


def tiny_timm(name: str) -> Tiny:
    """The arguments for `timm:<name>`: two blocks per stage and a small image, if supported.

    Raises:
        NotTiny: it does not build, or still has more than `MAX_PARAMETERS`.
    """
    import timm

    def make(arguments: dict[str, Any]) -> Any:
        return timm.create_model(name, pretrained=False, **arguments)

    takes = inspect.signature(type(_on_meta(make, {})).__init__).parameters
    image = {"img_size": 64} if "img_size" in takes else {}
    blocks = _blocks(takes)
    tries = (blocks | image, blocks, image, {})
    distinct = [t for index, t in enumerate(tries) if t not in tries[:index]]
    tries_by_name = ((", ".join(t) or "default", t) for t in distinct)
    return _first_that_runs(f"timm:{name}", make, tries_by_name)


def _blocks(takes: Any) -> dict[str, Any]:
    """Two blocks, or two per stage with the default number of stages."""
    for key in ("depth", "depths", "layers", "num_blocks"):
        if key in takes:
            value = takes[key].default
            if isinstance(value, list | tuple):
                return {key: [min(2, v) if isinstance(v, int) else list(v) for v in value]}
            return {key: [2] * 4 if key in ("depths", "layers") else _LAYERS}
    return {}


# both ---------------------------------------------------------------------------------------


def _first_that_runs(
    source: str,
    make: Callable[[dict[str, Any]], Any],
    tries: Iterator[tuple[str, dict[str, Any]]],
    mended: Iterable[tuple[str, dict[str, Any]]] = (),
) -> Tiny:
    """The first of `tries`, then of `mended`, that builds, is small and runs.

    Building is not enough: many constructors accept sizes with which forward fails. If none runs,
    the first that builds is returned, and the sweep reports the failure.

    Raises:
        NotTiny: none builds; with the size of the smallest, or the last error.
    """
    building = _that_build(make, tries)
    first = next(building)
    later = _that_build(make, mended, needed=False)
    every = itertools.chain([first], building, later)
    return next((tiny for tiny in every if _runs(source, tiny)), first)


def _runs(source: str, tiny: Tiny) -> bool:
    from reportgen.dummy_inputs import guess_inputs
    from reportgen.errors import ReportgenError
    from reportgen.manifest import ModelSpec, parse_source
    from reportgen.sources import load_model

    parsed = parse_source(source, Path.cwd())
    spec = ModelSpec(name="tiny", source=parsed, arguments=tiny.arguments)
    try:
        guess_inputs(spec, load_model(spec))
    except ReportgenError:
        return False
    return True


def _that_build(
    make: Callable[[dict[str, Any]], Any],
    tries: Iterable[tuple[str, dict[str, Any]]],
    *,
    needed: bool = True,
) -> Iterator[Tiny]:
    """Those of `tries` that build and are small; the last of `tries` is the library's default."""
    found = False
    sizes: list[int] = []
    errors: list[str] = []
    for level, arguments in tries:
        try:
            parameters = sum(p.numel() for p in _on_meta(make, arguments).parameters())
        except Exception as error:
            errors.append(_first_line(error))
            continue
        sizes.append(parameters)
        if 0 < parameters <= MAX_PARAMETERS:
            found = True
            yield Tiny(arguments=arguments, level=level, parameters=parameters)
    if not found and needed:
        reason = f"the library's default does not build: {errors[-1]}" if errors else ""
        raise NotTiny(f"{min(sizes) / 1e6:.0f} M parameters" if sizes else reason)


def _on_meta(make: Callable[[dict[str, Any]], Any], arguments: dict[str, Any]) -> Any:
    """The model on meta, or on the CPU if its constructor needs values."""
    import torch

    with _at_most(_SECONDS):
        try:
            with torch.device("meta"):
                return make(arguments)
        except (NotImplementedError, RuntimeError):
            return make(arguments)


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"the constructor took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:160]
