"""The subjects of a report as models: one base in memory, with adapters switched on and off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.domain.models import Subject
from tunesmith.domain.parity import Probes
from tunesmith.ports.language_model import GenerationParameters
from tunesmith_trainer.evaluation.judged_model import Sampled
from tunesmith_trainer.torch_backend.loading import LoadedModel, load_model
from tunesmith_trainer.torch_backend.probing import make_probes
from tunesmith_trainer.torch_backend.rows import TrainingRow
from tunesmith_trainer.torch_backend.sampling import completion_log_probs, sample

_NO_ADAPTER = ""


class AdaptedModel:
    """A JudgedModel: a loaded model answering with one of its adapters, or with none."""

    def __init__(self, loaded: LoadedModel, adapter: str, *, batch_size: int) -> None:
        self._loaded = loaded
        self._adapter = adapter
        self._batch_size = batch_size

    def sample(self, prompts: Sequence[str], parameters: GenerationParameters, *, seed: int) -> list[Sampled]:
        """One completion a prompt; see JudgedModel."""
        warped = any(value is not None for value in (parameters.temperature, parameters.top_k, parameters.top_p))
        temperature = (parameters.temperature or 1.0) if parameters.do_sample or warped else 0.0
        with self._chosen() as model:
            samples = sample(
                model,
                self._loaded.tokenizer,
                prompts,
                max_new_tokens=parameters.max_new_tokens,
                temperature=temperature,
                top_p=parameters.top_p or 1.0,
                top_k=parameters.top_k or 0,
                repetition_penalty=parameters.repetition_penalty or 1.0,
                stop=parameters.stop,
                seed=seed,
                batch_size=self._batch_size,
            )
        return [Sampled(s.text, s.finish_reason, s.num_tokens) for s in samples]

    def completion_log_probs(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        """Natural logarithm of each completion's probability; see JudgedModel."""
        with self._chosen() as model:
            return completion_log_probs(model, self._loaded.tokenizer, [TrainingRow(p, c) for p, c in rows])

    def probes(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str]) -> Probes:
        """Greedy answers that serving is held against; see `probing.make_probes`."""
        with self._chosen() as model:
            return make_probes(model, self._loaded.tokenizer, prompts, max_new_tokens=max_new_tokens, stop=stop)

    def _chosen(self) -> Any:
        """A context in which the model has this subject's adapter. Any: PEFT's models are not typed."""
        model: Any = self._loaded.model
        return _Switched(model, self._adapter)


class _Switched:
    """Turns one adapter on, or all off, for the length of a block."""

    def __init__(self, model: Any, adapter: str) -> None:
        self._model = model
        self._adapter = adapter
        self._off: Any = None

    def __enter__(self) -> Any:
        if self._adapter == _NO_ADAPTER:
            self._off = self._model.disable_adapter()
            self._off.__enter__()
        else:
            self._model.set_adapter(self._adapter)
        return self._model

    def __exit__(self, *error: Any) -> None:
        if self._off is not None:
            self._off.__exit__(*error)


def load_subjects(
    base: str | Path,
    candidate: Path,
    *,
    champion: Path | None,
    champion_base: str | Path | None,
    batch_size: int,
) -> Mapping[Subject, AdaptedModel]:
    """Base, candidate and, where there is one, champion. A champion of the same base shares its weights in memory.

    Raises what `load_model` raises.
    """
    loaded = load_model(base, adapter=candidate)
    subjects: dict[Subject, AdaptedModel] = {
        "base": AdaptedModel(loaded, _NO_ADAPTER, batch_size=batch_size),
        "candidate": AdaptedModel(loaded, "default", batch_size=batch_size),
    }
    if champion is not None and champion_base is not None:
        if champion_base == base:
            model: Any = loaded.model
            model.load_adapter(str(champion), adapter_name="champion")
            subjects["champion"] = AdaptedModel(loaded, "champion", batch_size=batch_size)
        else:
            elsewhere = load_model(champion_base, adapter=champion)
            subjects["champion"] = AdaptedModel(elsewhere, "default", batch_size=batch_size)
    return subjects
