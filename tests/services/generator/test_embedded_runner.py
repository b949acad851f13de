from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.tiny_models import FINGERPRINT, OTHER_FINGERPRINT, Tiny, build_tokenizer
from tunesmith.domain.errors import (
    BaseModelUnavailable,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters
from tunesmith_generator.runners.adapter_files import fetched
from tunesmith_generator.runners.embedded import EmbeddedRunner

MakeRunner = Callable[..., Awaitable[EmbeddedRunner]]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LONG = GenerationParameters(max_new_tokens=150)
SAMPLED = GenerationParameters(max_new_tokens=40, do_sample=True, temperature=1.2, seed=11)


def test_nothing_imports_pytorch_before_it_is_needed() -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import tunesmith_generator.handlers, tunesmith_generator.settings\n"
        "from tunesmith_generator.runners.embedded import EmbeddedRunner\n"
        "EmbeddedRunner(None, resolve_base=lambda model, _print: model, cache_dir=Path('.'))\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])\n"
    )

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def generated_by_transformers(base: Path, adapter_folder: Path | None, prompt: str, num_tokens: int) -> tuple[Any, ...]:
    """(token ids, log-probabilities) of transformers' own greedy `generate`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter_folder is not None:
        model = PeftModel.from_pretrained(model, str(adapter_folder))
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    output = model.eval().generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    generated = output.sequences[0, ids.shape[1] :].tolist()
    logprobs = [float(l.log_softmax(-1)[0, t]) for l, t in zip(output.logits, generated, strict=True)]  # noqa: E741
    return generated, logprobs


@pytest.mark.parametrize("name", ["v1", "v2", "base:sliding"])
async def test_greedy_tokens_and_logprobs_are_those_of_transformers(
    name: str, tiny: Tiny, make_runner: MakeRunner, tmp_path: Path
) -> None:
    """Also while rows of other adapters and lengths join and leave the batch, and beyond a sliding window."""
    runner = await make_runner("v1", "v2", max_batch_size=3)
    await runner.load(Adapter("base:sliding", "", "", "tiny", "sliding"))
    prompt = "12->a prompt of some length"
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if name in tiny.adapters:
            tiny.store.get_file(f"{tiny.adapters[name].key}{file}", tmp_path / file)
    adapter_folder = tmp_path if name in tiny.adapters else None
    base = tiny.bases["sliding" if name == "base:sliding" else FINGERPRINT]
    expected_ids, expected_logprobs = generated_by_transformers(base, adapter_folder, prompt, 40)

    async def others() -> None:
        for number in range(12):
            mate = ("v1", "v2", "base:sliding")[number % 3]
            await runner.generate("x" * (number * 5 + 1), replace(SAMPLED, max_new_tokens=5), adapter=mate)

    disturbance = [asyncio.create_task(others()) for _ in range(3)]
    await asyncio.sleep(0.01)
    chunks = [c async for c in runner.stream(prompt, GenerationParameters(max_new_tokens=40), adapter=name)]
    await asyncio.gather(*disturbance)

    assert [chunk.token.id for chunk in chunks] == expected_ids
    assert [chunk.token.logprob for chunk in chunks] == pytest.approx(expected_logprobs, abs=1e-4)


async def test_an_end_token_ends_an_answer_and_stays_out_of_the_text(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1")
    hot = GenerationParameters(max_new_tokens=512 - 4, temperature=50.0)

    for seed in range(20):
        chunks = [c async for c in runner.stream("12->", replace(hot, seed=seed), adapter="v1")]
        generation = chunks[-1].generation
        assert generation is not None
        if generation.finish_reason == "eos_token":
            break

    assert generation.finish_reason == "eos_token"
    assert chunks[-1].token.special
    assert chunks[-1].token.text == "</s>"
    assert "</s>" not in generation.text
    assert "".join(c.token.text for c in chunks if not c.token.special) == generation.text


async def test_a_short_request_does_not_wait_for_a_long_one(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1")

    long = asyncio.create_task(runner.generate("12->", LONG, adapter="v1"))
    await asyncio.sleep(0.01)
    await runner.generate("7->", GenerationParameters(max_new_tokens=3), adapter="v1")

    assert not long.done()
    assert (await long).num_generated_tokens == LONG.max_new_tokens


async def test_requests_that_begin_together_with_prompts_of_any_length_do_not_disturb_each_other(
    make_runner: MakeRunner,
) -> None:
    """They are read in one padded pass, once the slot is free that all of them wait for."""
    runner = await make_runner("v1", max_batch_size=8)
    prompts = ["x" * length for length in (1, 30, 7, 2, 50)]
    alone = [await runner.generate(prompt, SAMPLED, adapter="v1") for prompt in prompts]
    await asyncio.sleep(0)

    inbox, held_back = runner._inbox, []
    runner._inbox = type("Held", (), {"put": lambda _self, item: held_back.append(item)})()
    together = [asyncio.create_task(runner.generate(prompt, SAMPLED, adapter="v1")) for prompt in prompts]
    await asyncio.sleep(0.01)
    runner._inbox = inbox

    def at_once() -> None:
        """In the engine thread, so that it finds all of them in its inbox."""
        for ticket in held_back:
            inbox.put(ticket)

    inbox.put(at_once)

    assert [await task for task in together] == alone


async def test_a_cancelled_request_leaves_the_batch(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_generator.runners.torch_engine.bases import Base

    runner = await make_runner("v1")
    forward, passes = Base.forward, []
    monkeypatch.setattr(Base, "forward", lambda *args, **rest: passes.append(1) or forward(*args, **rest))
    endless = replace(LONG, max_new_tokens=500)

    for _ in range(3):
        async with aclosing(runner.stream("12->", endless, adapter="v1")) as chunks:
            await anext(chunks)
    await runner.generate("12->", GenerationParameters(max_new_tokens=3), adapter="v1")
    num_passes = len(passes)
    await asyncio.sleep(0.1)

    assert len(passes) == num_passes, "the engine stands still when nobody waits"


async def test_many_requests_share_the_slots_and_each_gets_its_own_answer(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1", "v2", max_batch_size=5)
    asked = [(f"{n}->", replace(SAMPLED, seed=n, max_new_tokens=1 + n % 17), ("v1", "v2")[n % 2]) for n in range(40)]

    together = await asyncio.gather(*(runner.generate(p, q, adapter=a) for p, q, a in asked))

    alone = [await runner.generate(p, q, adapter=a) for p, q, a in asked]
    assert together == alone


async def test_more_requests_than_may_wait_are_refused_as_overloaded(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1", max_batch_size=1, queue_limit=2)

    results = await asyncio.gather(
        *(runner.generate("12->", SAMPLED, adapter="v1") for _ in range(5)), return_exceptions=True
    )

    assert [type(result) for result in results] == [Generation] * 3 + [ResourceExhausted] * 2
    assert isinstance(results[3], ResourceExhausted)
    assert results[3].reason == "OVERLOADED"
    assert await runner.generate("12->", SAMPLED, adapter="v1") == results[0]


async def test_a_prompt_beyond_the_limit_is_refused_with_the_limit(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1", max_prompt_tokens=10)

    with pytest.raises(InvalidInput, match=r"prompt of 11 tokens is too long.*at most 10"):
        await runner.generate("x" * 11, GenerationParameters(), adapter="v1")
    await runner.generate("x" * 11, GenerationParameters(truncate=10), adapter="v1")


async def test_a_prompt_that_leaves_no_room_in_the_model_is_refused(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1")

    with pytest.raises(InvalidInput, match="at most 12 fit"):
        await runner.generate("x" * 13, GenerationParameters(max_new_tokens=500), adapter="v1")


async def test_weights_with_another_hash_are_refused(tiny: Tiny, make_runner: MakeRunner) -> None:
    runner = await make_runner()
    forged = replace(tiny.adapters["v1"], name="forged", hash="0" * 64)

    with pytest.raises(DataLoss, match="forged is corrupt"):
        await runner.load(forged)
    with pytest.raises(NotFound):
        await runner.generate("12->", SAMPLED, adapter="forged")


async def test_missing_adapter_files_are_not_found(tiny: Tiny, make_runner: MakeRunner) -> None:
    runner = await make_runner()

    with pytest.raises(NotFound, match=r"gone cannot be loaded: runs/nowhere/adapter_config\.json"):
        await runner.load(replace(tiny.adapters["v1"], name="gone", key="runs/nowhere/"))


def test_only_the_two_safe_files_are_fetched(tiny: Tiny, tmp_path: Path) -> None:
    adapter = tiny.adapters["v1"]
    tiny.store.put(f"{adapter.key}training_args.bin", b"a pickle")

    with fetched(adapter, store=tiny.store, cache_dir=tmp_path) as folder:
        names = sorted(path.name for path in folder.iterdir())

    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    assert list(tmp_path.iterdir()) == []


async def test_an_adapter_that_does_not_fit_is_refused_and_leaves_no_trace(tiny: Tiny, make_runner: MakeRunner) -> None:
    """PEFT itself only warns of keys that do not match, and would answer from the base."""
    import safetensors.torch

    runner = await make_runner()
    await runner.load(Adapter("bare", "", "", "tiny", FINGERPRINT))
    before = await runner.generate("12->", SAMPLED, adapter="bare")
    original = tiny.adapters["v1"]
    weights = safetensors.torch.load(tiny.store.get(f"{original.key}adapter_model.safetensors").data)
    strange = safetensors.torch.save({name.replace("q_proj", "qq_proj"): value for name, value in weights.items()})
    tiny.store.put("runs/strange/adapter_model.safetensors", strange)
    tiny.store.put("runs/strange/adapter_config.json", tiny.store.get(f"{original.key}adapter_config.json").data)

    adapter = replace(original, name="strange", key="runs/strange/", hash=hashlib.sha256(strange).hexdigest())
    with pytest.raises(BaseModelUnavailable, match="strange does not fit"):
        await runner.load(adapter)

    assert await runner.generate("12->", SAMPLED, adapter="bare") == before
    await runner.load(original)
    with pytest.raises(BaseModelUnavailable, match="strange does not fit"):
        await runner.load(adapter)
    assert (await runner.generate("12->", SAMPLED, adapter="v1")).text != before.text


async def test_a_base_that_is_not_there_is_unavailable(tiny: Tiny, tmp_path: Path) -> None:
    runner = EmbeddedRunner(tiny.store, resolve_base=lambda _model, _print: tmp_path / "nowhere", cache_dir=tmp_path)

    with pytest.raises(BaseModelUnavailable, match="tiny cannot be loaded"):
        await runner.load(tiny.adapters["v1"])
    await runner.close()


async def test_adapters_of_two_bases_answer_side_by_side(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1", "w1")

    one, other = await asyncio.gather(*(runner.generate("12->", SAMPLED, adapter=a) for a in ("v1", "w1")))

    assert one.text != other.text
    with pytest.raises(FailedPrecondition, match="2 base models are loaded"):
        await runner.generate("12->", SAMPLED, adapter=None)


async def test_each_base_can_be_asked_under_a_name(make_runner: MakeRunner) -> None:
    runner = await make_runner("v1")
    nameless = await runner.generate("12->", SAMPLED, adapter=None)

    for fingerprint in (FINGERPRINT, OTHER_FINGERPRINT):
        await runner.load(Adapter(f"base:{fingerprint}", "", "", "tiny", fingerprint))

    assert await runner.generate("12->", SAMPLED, adapter=f"base:{FINGERPRINT}") == nameless
    assert await runner.generate("12->", SAMPLED, adapter=f"base:{OTHER_FINGERPRINT}") != nameless


async def test_an_idle_base_makes_room_and_one_in_use_does_not(tiny: Tiny, make_runner: MakeRunner) -> None:
    runner = await make_runner("v1", max_loaded_bases=1)

    with pytest.raises(ResourceExhausted, match="MAX_LOADED_BASES"):
        await runner.load(tiny.adapters["w1"])
    await runner.unload("v1")
    await runner.load(tiny.adapters["w1"])

    assert (await runner.generate("12->", SAMPLED, adapter="w1")).text


async def test_a_failure_fails_its_own_requests_only(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_generator.runners.torch_engine.bases import Base

    runner = await make_runner("v1", "w1")
    expected = {a: await runner.generate("12->", replace(SAMPLED, max_new_tokens=80), adapter=a) for a in ("v1", "w1")}
    forward, broken = Base.forward, True

    def failing(self: Base, ids: Any, **rest: Any) -> Any:
        if broken and ids.shape[1] > 20:
            raise RuntimeError("the accelerator fell over")
        return forward(self, ids, **rest)

    monkeypatch.setattr(Base, "forward", failing)
    running = {
        a: asyncio.create_task(runner.generate("12->", replace(SAMPLED, max_new_tokens=80), adapter=a))
        for a in ("v1", "w1")
    }
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable, match="the accelerator fell over"):
        await runner.generate("x" * 30, SAMPLED, adapter="v1")

    assert {a: await task for a, task in running.items()} == expected
    broken = False
    assert (await runner.generate("x" * 30, SAMPLED, adapter="v1")).text


async def test_running_out_of_memory_in_a_step_is_survived(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tunesmith_generator.runners.torch_engine.batch import Batch

    runner = await make_runner("v1")
    expected = await runner.generate("12->", SAMPLED, adapter="v1")

    def out_of_memory(self: Batch) -> None:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(Batch, "step", out_of_memory)
        with pytest.raises(ResourceExhausted, match="out of memory"):
            await runner.generate("12->", SAMPLED, adapter="v1")

    assert await runner.generate("12->", SAMPLED, adapter="v1") == expected


async def test_closing_ends_what_runs_and_refuses_the_rest(tiny: Tiny, make_runner: MakeRunner) -> None:
    runner = await make_runner("v1", max_batch_size=1)
    running = [asyncio.create_task(runner.generate("12->", LONG, adapter="v1")) for _ in range(3)]
    await asyncio.sleep(0.02)

    await runner.close()
    await runner.close()

    results = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    with pytest.raises(Unavailable):
        await runner.generate("12->", LONG, adapter="v1")
    with pytest.raises(Unavailable):
        await runner.load(tiny.adapters["v2"])
    await runner.unload("v1")


async def test_closing_a_runner_that_never_ran_does_nothing(tiny: Tiny, tmp_path: Path) -> None:
    await EmbeddedRunner(tiny.store, resolve_base=lambda model, _print: model, cache_dir=tmp_path).close()
