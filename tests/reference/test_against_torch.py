"""Logits and gradients against stacks of `torch.nn.TransformerEncoderLayer` and `...DecoderLayer`.

PyTorch's layers always have projection biases, so ours do here. Its side runs in float64.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
import reference_cases as cases

from transformer.config import ModelConfig

torch = pytest.importorskip("torch", reason="PyTorch, not a dependency of this project, is not installed")

Array = np.ndarray
REAL = cases.TGT_SEG > 0


def torch_names(params: Mapping[str, Array], config: ModelConfig) -> dict[str, Array]:
    """Returns parameters, or their gradients, in PyTorch's names and layouts.

    Its linear layers hold [out, in], and query, key and value are one matrix.
    """
    d = config.d_model
    result = {}

    def attention(ours: str, theirs: str) -> None:
        parts = ("query", "key", "value")
        result[f"{theirs}.in_proj_weight"] = np.concatenate(
            [params[f"{ours}/{part}/kernel"].reshape(d, d).T for part in parts]
        )
        result[f"{theirs}.in_proj_bias"] = np.concatenate(
            [params[f"{ours}/{part}/bias"].reshape(d) for part in parts]
        )
        result[f"{theirs}.out_proj.weight"] = params[f"{ours}/out/kernel"].reshape(d, d).T
        result[f"{theirs}.out_proj.bias"] = params[f"{ours}/out/bias"]

    def norm(ours: str, theirs: str) -> None:
        result[f"{theirs}.weight"] = params[f"{ours}/scale"]
        result[f"{theirs}.bias"] = params[f"{ours}/bias"]

    for stack, depth in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_layers)):
        attentions = {"self_attention": "self_attn"}
        if stack == "decoder":
            attentions["cross_attention"] = "multihead_attn"
        for i in range(depth):
            ours, theirs = f"{stack}/layer_{i}", f"{stack}.{i}"
            for a, b in attentions.items():
                attention(f"{ours}/{a}", f"{theirs}.{b}")
            for a, b in (("wi", "linear1"), ("wo", "linear2")):
                result[f"{theirs}.{b}.weight"] = params[f"{ours}/feed_forward/{a}/kernel"].T
                result[f"{theirs}.{b}.bias"] = params[f"{ours}/feed_forward/{a}/bias"]
            for number, sublayer in enumerate((*attentions, "feed_forward"), start=1):
                norm(f"{ours}/{sublayer}_norm", f"{theirs}.norm{number}")
        result[f"{stack}_positions.weight"] = params[f"{stack}/positions"]
        if config.norm == "pre":
            norm(f"{stack}/final_norm", f"{stack}_norm")
    for use in ("source", "target", "output"):
        result[f"{use}.weight"] = params[f"{use}/embedding"]
    return result


class TorchTransformer(torch.nn.Module):
    """Embeddings, learned positions, PyTorch's layers, output matrix; untied."""

    def __init__(self, config: ModelConfig, source_vocab: int, target_vocab: int) -> None:
        super().__init__()
        nn, d = torch.nn, config.d_model
        self.config = config
        self.source = nn.Embedding(source_vocab, d)
        self.target = nn.Embedding(target_vocab, d)
        self.output = nn.Linear(d, target_vocab, bias=False)
        self.encoder_positions = nn.Embedding(config.max_length, d)
        self.decoder_positions = nn.Embedding(config.max_length, d)
        choices = dict(
            d_model=d,
            nhead=config.num_heads,
            dim_feedforward=config.d_ff,
            dropout=0.0,
            activation=config.activation,
            layer_norm_eps=config.norm_epsilon,
            batch_first=True,
            norm_first=config.norm == "pre",
        )
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(**choices) for _ in range(config.num_encoder_layers)
        )
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(**choices) for _ in range(config.num_decoder_layers)
        )
        final = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(d, eps=config.norm_epsilon) if final else nn.Identity()
        self.decoder_norm = nn.LayerNorm(d, eps=config.norm_epsilon) if final else nn.Identity()

    def forbidden(self, seg_BT: Any, seg_BS: Any) -> Any:
        """Returns [B * H, T, S]: True where attention may not go. Padding queries go everywhere (no NaN)."""
        query, key = seg_BT[:, :, None], seg_BS[:, None, :]
        return ((query != key) & (query > 0)).repeat_interleave(self.config.num_heads, dim=0)

    def forward(self, src: Any, src_seg: Any, src_pos: Any, tgt: Any, tgt_seg: Any, tgt_pos: Any) -> Any:
        scale = self.config.d_model**0.5
        x = self.source(src) * scale + self.encoder_positions(src_pos)
        for layer in self.encoder:
            x = layer(x, src_mask=self.forbidden(src_seg, src_seg))
        memory = self.encoder_norm(x)
        later = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool).triu(1)
        y = self.target(tgt) * scale + self.decoder_positions(tgt_pos)
        for layer in self.decoder:
            y = layer(
                y,
                memory,
                tgt_mask=self.forbidden(tgt_seg, tgt_seg) | later,
                memory_mask=self.forbidden(tgt_seg, src_seg),
            )
        return self.output(self.decoder_norm(y))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_logits_and_gradients_are_those_of_torch_layers(norm: str, activation: str) -> None:
    config = cases.model_config(
        norm=norm,
        activation=activation,
        attention_bias=True,
        tied_embeddings="none",
        positions="learned",
        norm_epsilon=1e-5,
    )
    model = cases.build(config)
    params = cases.random_params(model)
    inputs, _ = cases.batch(model)
    # The loss is a sum of the logits with random weights, so that each of them counts.
    weights_BTV = np.random.default_rng(1).normal(size=(*REAL.shape, model.target_vocab)) * REAL[..., None]

    theirs = TorchTransformer(config, model.source_vocab, model.target_vocab).double()
    named = torch_names(cases.flatten(params), config)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in named.items()}, strict=True)
    expected = theirs(*(torch.from_numpy(x).long() for x in inputs))
    (expected * torch.from_numpy(weights_BTV)).sum().backward()

    def weighted_sum_and_logits(params: Any) -> tuple[jax.Array, jax.Array]:
        y_BTD = model.apply({"params": params}, *inputs)
        logits_BTV = model.apply({"params": params}, y_BTD, method="logits")
        return (logits_BTV * weights_BTV).sum(), logits_BTV

    gradient, logits_BTV = jax.jit(jax.grad(weighted_sum_and_logits, has_aux=True))(params)
    np.testing.assert_allclose(
        np.asarray(logits_BTV)[REAL], expected.detach().numpy()[REAL], atol=1e-5, rtol=0
    )
    ours = torch_names(cases.flatten(gradient), config)
    for name, parameter in theirs.named_parameters():
        wanted = parameter.grad.numpy()
        # Relative to the largest entry of the gradient as a whole: single ones may cancel to nothing.
        atol = 1e-5 * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(ours.pop(name), wanted, rtol=0, atol=atol, err_msg=name)
    assert not ours
