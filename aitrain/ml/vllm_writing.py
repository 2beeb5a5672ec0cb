"""Answers written by vLLM with the policy's weights, through TRL's `VLLMGeneration`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trl.generation.vllm_generation import VLLMGeneration

from aitrain.errors import ConfigError, Problem
from aitrain.ml.sampling import Answer, Sampling

if TYPE_CHECKING:
    from aitrain.config.run import Run


def _engine(address: str | None, **settings: Any) -> Any:
    """Raises ConfigError where no server answers, for which TRL waits four minutes."""
    try:
        return VLLMGeneration(server_base_url=address, **settings)
    except ConnectionError as error:
        what = f"no server answers at {address}"
        raise ConfigError(Problem("rl.vllm_server_url", what, "start one with `trl vllm-serve`")) from error


class VLLMWriter:
    """vLLM on the GPU of each process, or a server; see `rl.vllm_mode`.

    vLLM draws its own random numbers. Log-probabilities are not taken from it: they are computed by the policy itself.
    """

    def __init__(
        self, run: Run, policy: Any, accelerator: Any, tokenizer: Any, settings: Sampling, longest: int | None
    ) -> None:
        """`policy` is the causal language model whose weights it takes over, with or without an adapter; `longest` is
        how many tokens a row may come to have, for which vLLM keeps memory ready."""
        rl: Any = run.rl
        self.settings = settings
        self.tokenizer = tokenizer
        self.engine = _engine(
            rl.vllm_server_url,
            model=policy,
            accelerator=accelerator,
            processing_class=tokenizer,
            mode=rl.vllm_mode,
            gpu_memory_utilization=rl.vllm_gpu_memory_utilization,
            enable_sleep_mode=rl.vllm_enable_sleep_mode,
            max_num_seqs=rl.chunk_size,
            max_model_length=longest,
            trust_remote_code=run.model.trust_remote_code,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            max_completion_length=settings.max_new_tokens,
            generation_kwargs={
                "stop_token_ids": list(settings.end_ids),
                "stop": list(settings.stop_strings) or None,
                "include_stop_str_in_output": True,
                "skip_special_tokens": False,  # a stop string may be one
            },
        )

    def take_weights(self) -> None:
        """Take over the policy's weights as they are; an adapter's are merged in on the way. Collective."""
        self.engine.sync_weights()

    def write(self, prompts: Sequence[Sequence[int]]) -> list[Answer]:
        """An answer to each prompt (token ids), in order."""
        _, completions, _, _ = self.engine.generate([list(prompt) for prompt in prompts], None, 1)
        return [Answer(list(ids), self._ended(ids)) for ids in completions]

    def _ended(self, ids: Sequence[int]) -> bool:
        """Whether the model ended it by itself."""
        if ids and ids[-1] in self.settings.end_ids:
            return True
        text = self.tokenizer.decode(ids)
        return any(stop in text for stop in self.settings.stop_strings)
