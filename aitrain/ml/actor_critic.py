"""Policy and value function in one module with one forward pass, so that wrapping it for many processes holds both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aitrain.ml.heads import TokenScores, add_token_scores, core_of

VALUE = "value.safetensors"
"""File in a checkpoint that holds the value function: its head, and its own trunk if it has one."""


class Judged(NamedTuple):
    """What the forward pass returns; all (targets,), float32."""

    logps: Tensor
    """Log-probability of the target under the policy at its temperature."""
    entropies: Tensor
    values: Tensor
    """The value of the state before the target."""


class ValueHead(nn.Module):
    """A linear layer from a hidden state to its value, in float32; it begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(positions, width) to (positions,)."""
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.linear(hidden.float())[:, 0]
        return values


class ActorCritic(nn.Module):
    """The policy, and the value function: a head on the policy's hidden states, or on those of a trunk of its own."""

    _keys_to_ignore_on_save = None  # transformers' Trainer asks for it after loading weights

    def __init__(self, policy: Any, *, temperature: float, value_trunk: Any = None) -> None:
        super().__init__()
        self.policy = policy
        self.value_trunk = value_trunk
        width = (value_trunk if value_trunk is not None else core_of(policy)).config.get_text_config().hidden_size
        self.value_head = ValueHead(width)
        add_token_scores(policy, temperature)

    @property
    def config(self) -> Any:
        """The policy's."""
        return self.policy.config

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Make the policy's activations again in the backward pass instead of keeping them."""
        self.policy.gradient_checkpointing_enable(**settings)

    def forward(self, kept: Tensor, targets: Tensor, **inputs: Any) -> Judged:
        """Judge tokens that follow positions `kept` of a batch; see `aitrain.ml.heads.add_token_scores`."""
        scores: TokenScores = self.policy(kept=kept, targets=targets, **inputs)
        hidden = scores.hidden
        if self.value_trunk is not None:
            hidden = self.value_trunk(**inputs)[0].flatten(0, -2)[kept]
        return Judged(scores.logps, scores.entropies, self.value_head(hidden))

    def save_pretrained(self, folder: Path | str) -> None:
        """The policy as transformers or peft write it, and the value function beside it."""
        self.policy.save_pretrained(folder)
        save_file(self._of_value(), Path(folder) / VALUE)

    def load_value(self, folder: Path) -> None:
        """Take over the value function of a checkpoint."""
        missing, unexpected = self.load_state_dict(load_file(folder / VALUE), strict=False)
        ours = [name for name in missing if not name.startswith("policy.")]
        if ours or unexpected:
            raise RuntimeError(f"{folder / VALUE} holds another value function: {ours or unexpected}")

    def _of_value(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.state_dict().items()
            if not name.startswith("policy.")
        }
