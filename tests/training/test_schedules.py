"""Optimisers and schedules, by name, class and function: the rates of each step, and resuming."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    ReduceLROnPlateau,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

from faster_isnet.methods import Standard
from faster_isnet.training.lit_classifier import LitClassifier
from faster_isnet.training.schedules import SCHEDULES, build_schedule

RATE = 0.1


def rates_of(name: str, steps: int, per_epoch: int, **options: Any) -> list[float]:
    """Return the rate of each step, stepped as Lightning does."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], RATE, momentum=0.9)
    schedule, interval = build_schedule(optimizer, name, steps, per_epoch, **options)
    rates = []
    for step in range(1, steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if interval == "step" or step % per_epoch == 0:
            schedule.step()
    return rates


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_rates_are_their_formulas(epochs: int, per_epoch: int, data: st.DataObject) -> None:
    steps = epochs * per_epoch
    warmup = data.draw(st.integers(0, steps - 1))
    milestones = sorted(data.draw(st.sets(st.integers(1, epochs))))
    rise = [RATE * (0.01 + 0.99 * step / warmup) for step in range(warmup)] if warmup else []
    formulas = {
        "constant": lambda step: RATE,
        "cosine": lambda step: (
            RATE * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
        ),
        "milestones": lambda step: RATE * 0.5 ** sum(step >= m * per_epoch for m in milestones),
    }
    for name, formula in formulas.items():
        found = rates_of(
            name, steps, per_epoch, warmup_steps=warmup, milestones=milestones, factor=0.5
        )
        assert found == pytest.approx(rise + [formula(step) for step in range(warmup, steps)])


@settings(max_examples=60)
@given(st.integers(1, 40), st.none() | st.integers(0, 39))
def test_one_cycle_rises_and_falls(steps: int, warmup: int | None) -> None:
    if warmup is not None and warmup >= steps:
        warmup = steps - 1
    rates = rates_of("one-cycle", steps, steps, warmup_steps=warmup)
    peak = rates.index(max(rates))
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert rates[-1] < RATE / 1000
    if warmup is not None and steps > 2:
        assert peak == min(max(warmup, 1), steps - 2)
        assert rates[peak] == pytest.approx(RATE)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_as_long_as_the_training_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the warm-up takes 20 steps, but the whole training has"):
        rates_of(name, 20, 5, warmup_steps=20)


class Rates(Callback):
    """The learning rate of each optimiser step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, lit: Any, optimizer: Any) -> None:
        self.found.append(optimizer.param_groups[0]["lr"])


def data(n: int = 20) -> DataLoader[Any]:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.rand(n, 3), torch.randint(0, 2, (n,))), 2)


def lit_of(**options: Any) -> LitClassifier:
    torch.manual_seed(0)
    return LitClassifier(nn.Linear(3, 2), Standard(), **({"learning_rate": RATE} | options))


def fit(lit: LitClassifier, epochs: int = 4, ckpt: Any = None, **options: Any) -> list[float]:
    rates = Rates()
    options = {"logger": False, "enable_checkpointing": False} | options
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **(options | {"callbacks": [rates, *options.get("callbacks", ())]}),
    )
    trainer.fit(lit, data(), data(), ckpt_path=ckpt)
    return rates.found


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [None, 1.5])
def test_optimiser_steps_count_where_gradients_are_accumulated(
    name: str, warmup: float | None
) -> None:
    """10 batches an epoch, of which 4 make a step: 3 steps an epoch."""
    milestones = [2, 3] if name == "milestones" else []
    lit = lit_of(schedule=name, warmup_epochs=warmup, milestones=milestones)
    found = fit(lit, accumulate_grad_batches=4)
    steps = None if warmup is None else round(1.5 * 3)
    assert found == pytest.approx(
        rates_of(name, 12, 3, warmup_steps=steps, milestones=milestones), abs=1e-9
    )


def test_epochs_are_those_of_the_data_where_steps_are_limited() -> None:
    lit = lit_of(schedule="milestones", milestones=[1], warmup_epochs=0.2)
    found = fit(lit, max_steps=15)
    assert found == pytest.approx(rates_of("milestones", 15, 10, warmup_steps=2, milestones=[1]))


def test_a_run_of_one_batch_to_try_things_has_a_warm_up() -> None:
    assert len(fit(lit_of(schedule="cosine", warmup_epochs=2), fast_dev_run=True)) == 1


def test_a_schedule_by_name_needs_the_length_of_the_training() -> None:
    with pytest.raises(ValueError, match=r"schedule='cosine' needs the length .*max_epochs"):
        fit(lit_of(schedule="cosine"), epochs=-1, max_time={"seconds": 1})


def one_over(optimizer: torch.optim.Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: 1 / (1 + step))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (partial(StepLR, step_size=2), lambda i: RATE * 0.1 ** (i // 2)),
        (partial(ExponentialLR, gamma=0.5), lambda i: RATE * 0.5**i),
        (one_over, lambda i: RATE / (1 + i)),
    ],
)
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_any_class_or_function_makes_a_schedule(
    schedule: Any, expected: Any, interval: str
) -> None:
    found = fit(lit_of(schedule=schedule, schedule_interval=interval), epochs=3)
    epochs_or_steps = [i // 10 if interval == "epoch" else i for i in range(30)]
    assert found == pytest.approx([expected(i) for i in epochs_or_steps])


def test_a_schedule_on_a_plateau_follows_a_value() -> None:
    schedule = partial(ReduceLROnPlateau, mode="max", factor=0.5, patience=0, threshold=10.0)
    found = fit(lit_of(schedule=schedule, schedule_monitor="train/accuracy"), epochs=3)
    assert found == pytest.approx([RATE] * 20 + [RATE / 2] * 10)
    with pytest.raises(ValueError, match=r"monitors 'val/los'.*did you mean 'val/loss'"):
        fit(lit_of(schedule=schedule, schedule_monitor="val/los"))
    with pytest.raises(MisconfigurationException, match=r"other.*not available"):
        fit(lit_of(schedule=schedule, schedule_monitor="other"))


@pytest.mark.parametrize(
    ("optimizer", "kind", "rate"),
    [
        (torch.optim.RMSprop, torch.optim.RMSprop, RATE),
        (partial(torch.optim.SGD, nesterov=True, momentum=0.5), torch.optim.SGD, RATE),
        (lambda parameters, lr: torch.optim.Rprop(parameters, lr), torch.optim.Rprop, RATE),
        (partial(torch.optim.SGD, lr=0.3), torch.optim.SGD, None),
    ],
)
def test_any_class_or_function_makes_an_optimiser(optimizer: Any, kind: Any, rate: Any) -> None:
    options = {"optimizer": optimizer, "learning_rate": rate, "schedule": "constant"}
    made = lit_of(**options).configure_optimizers()
    assert type(made) is kind
    assert made.param_groups[0]["lr"] == (rate or 0.3)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"schedule": "cosin"}, ValueError, "did you mean 'cosine'"),
        ({"schedule_interval": "batch"}, ValueError, "unknown schedule_interval 'batch'"),
        ({"warmup_epochs": -1}, ValueError, "warmup_epochs must be"),
        ({"warmup_epochs": 1, "schedule": one_over}, ValueError, "SequentialLR"),
        ({"milestones": [3], "schedule": "cosine"}, ValueError, r"milestones=\[3\] are of"),
        ({"milestone_factor": 0}, ValueError, "milestone_factor must be"),
    ],
)
def test_options_are_checked(options: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message):
        lit_of(**options)


def test_what_they_make_is_checked() -> None:
    with pytest.raises(TypeError, match=r"must make a torch.optim.Optimizer, got list"):
        lit_of(optimizer=lambda parameters, lr: [lr]).configure_optimizers()
    with pytest.raises(TypeError, match=r"LRScheduler of an optimiser, got float"):
        lit_of(schedule=lambda optimizer: 0.1).configure_optimizers()


def resumed(options: dict[str, Any], epochs: int, path: Path, **trainer: Any) -> Any:
    """Train, keep a checkpoint after the second epoch, and go on from it; the rates of both."""
    keep = ModelCheckpoint(path, "{epoch}", save_top_k=-1)
    whole = lit_of(**options)
    rates = fit(whole, epochs, callbacks=[keep], enable_checkpointing=True, **trainer)
    again = lit_of(**options)
    rest = fit(again, epochs, path / "epoch=1.ckpt", **trainer)
    return whole, rates, again, rest


WARM = {"warmup_epochs": 0.5}
ALL: dict[str, dict[str, Any]] = {
    **{name: {"schedule": name} for name in SCHEDULES},
    **{f"{name}, warm": {"schedule": name, **WARM} for name in SCHEDULES if name != "milestones"},
    "milestones 1, 3": {"milestones": [1, 3], "optimizer": "adamw"},
    "milestones 1, 3, warm": {"milestones": [1, 3], **WARM},
    "function": {"schedule": one_over, "schedule_interval": "step"},
    "restarts": {"schedule": partial(CosineAnnealingWarmRestarts, T_0=2)},
}


@pytest.mark.parametrize("kind", ALL)
def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(kind: str, tmp_path: Path) -> None:
    whole, rates, again, rest = resumed(ALL[kind], 4, tmp_path, accumulate_grad_batches=4)
    assert len(rates) == 12
    assert rest == rates[6:]
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("optimizer", "name", "momenta"),
    [
        (torch.optim.AdamW, "betas", (0.85, 0.95)),
        (partial(torch.optim.SGD, momentum=0.5), "momentum", (0.45, 0.55)),
        (partial(torch.optim.SGD, momentum=0.0), "momentum", (0.0, 0.0)),
        (torch.optim.Rprop, None, None),
    ],
)
def test_one_cycle_by_default_moves_the_momentum_that_an_optimiser_has(
    optimizer: Any, name: Any, momenta: Any
) -> None:
    found = []

    class Momenta(Rates):
        def on_before_optimizer_step(self, trainer: Any, lit: Any, optimizer: Any) -> None:
            (group,) = optimizer.param_groups
            found.append(group.get(name, 0) if name != "betas" else group["betas"][0])

    rates = fit(lit_of(optimizer=optimizer, learning_rate=0.1), callbacks=[Momenta()])
    assert max(rates) == pytest.approx(0.1)
    assert rates[-1] < 1e-4
    if momenta is not None:
        assert (min(found), max(found)) == pytest.approx(momenta, abs=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_that_is_resumed_for_longer_has_the_longer_schedule(
    name: str, tmp_path: Path
) -> None:
    options = {"schedule": name, **WARM, "milestones": [3] if name == "milestones" else []}
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(lit_of(**options), 2, callbacks=[keep], enable_checkpointing=True)
    rest = fit(lit_of(**options), 4, tmp_path / "epoch=1.ckpt")
    expected = rates_of(name, 40, 10, warmup_steps=5, milestones=options["milestones"])
    # The first step has the rate that the optimiser was saved with: the last of the shorter one.
    assert rest[1:] == pytest.approx(expected[21:])
