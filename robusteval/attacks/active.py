"""The engine: run an attack's jobs in batches that stay full until the work runs out.

An example leaves the moment one of its candidates is verified by the original model in float32 on the clipped image.
Its place, and that of every run that has ended, is filled with the next waiting run. A run depends on nothing but
(seed, example, attack, run), so whether an example breaks depends neither on the number of slots nor on the order or
the company of the examples; which of its runs breaks it first does, where several would.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robusteval.attacks.accounts import Accounts
from robusteval.attacks.base import Found, OnVerdict, Standing, Verdict, judged, original_logits
from robusteval.attacks.geometry import clip_to_threat, perturbation_norm
from robusteval.attacks.guard import check_proposal
from robusteval.attacks.jobs import (
    NEAR,
    STUCK,
    UNDEFINED,
    AnyJobAttack,
    Jobs,
    State,
    Step,
    joined,
    replaced,
    selected,
)
from robusteval.attacks.run_queue import Job, RunQueue
from robusteval.attacks.symptoms import NAN_GRADIENT, NAN_LOGITS, ZERO_GRADIENT
from robusteval.models.classifier import Classifier
from robusteval.models.form_building import PROBES
from robusteval.models.search import SearchModel
from robusteval.schema.errors import CellError

ACCELERATOR_SLOTS = 16
"""An accelerator takes this many times the slots of a CPU."""
REFILL = 8
"""Slots are filled again once an eighth of them is free: small batches cost the network nearly as much as full ones."""


def attack_all(
    attack: AnyJobAttack, model: Classifier, images: Tensor, labels: Tensor, *, keys: Tensor, seed: int
) -> Tensor:
    """Attack N correctly classified examples.

    Args:
        attack: the attack.
        model: the classifier, frozen.
        images: (N, C, H, W) clean images in [0, 1].
        labels: (N,) true labels.
        keys: (N,) example keys.
        seed: evaluation seed.

    Returns:
        (N, C, H, W): a verified adversarial image inside the threat model, or the clean image of a survivor.
    """
    return Engine(attack, model, Standing(images, labels, keys, original_logits(model, images)), seed).run().images


def prepared_search(attack: AnyJobAttack, model: Classifier, examples: Standing) -> SearchModel:
    """The network to search with, measured on the first examples in key order, whatever the slots and their order."""
    shared = attack.search if attack.search is not None and attack.search.fits(model) else SearchModel(model)
    search = shared.at(attack.precision)
    first = examples.keys.argsort(stable=True)[:PROBES]
    if len(first):
        search.prepare(examples.images[first])
    return search


class Engine:
    """One attack on N examples. A row is a job in the current batch.

    Args:
        attack: the attack.
        model: the classifier, frozen.
        examples: what it gets right.
        seed: evaluation seed.
        on_verdict: told each verdict when it is final.
    """

    def __init__(
        self,
        attack: AnyJobAttack,
        model: Classifier,
        examples: Standing,
        seed: int,
        on_verdict: OnVerdict | None = None,
    ) -> None:
        self.attack, self.model, self.examples, self.seed = attack, model, examples, seed
        self.search = prepared_search(attack, model, examples)
        self.on_verdict = on_verdict
        n = len(examples)
        self.queue = RunQueue(n, attack.runs(model.classes))
        self.accounts = Accounts(n)
        self.verdicts: list[Verdict | None] = [None] * n
        self.found = examples.images.clone()
        self.margin, _ = judged(examples.logits, examples.labels)
        packing = self.search.packing if n else 1
        on_cpu = examples.images.device.type == "cpu"
        self.slots = attack.fitting or attack.slots * (packing if on_cpu else ACCELERATOR_SLOTS)
        self.state: State = {}
        self.rows: list[Job] = []
        self.steps: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._unfinished: list[Job] = []
        self._near: list[int] = []

    def run(self) -> Found:
        """Run every job that is needed.

        Raises:
            CellError: the attack proposes NaN or leaves the threat model, or one job alone does not fit into memory.
        """
        while self._round():
            pass
        if self._near:
            self._search_exactly()
            while self._round():
                pass
        verdicts = tuple(verdict for verdict in self.verdicts if verdict is not None)
        device = self.examples.labels.device
        broken = torch.tensor([verdict.broken for verdict in verdicts], dtype=torch.bool, device=device)
        return Found(self.found, broken, self.margin, verdicts)

    def _search_exactly(self) -> None:
        """Attack once more in float32 what low precision has left too near the boundary to be sure."""
        self.search = self.search.at("exact")
        self.queue = RunQueue(len(self.examples), self.queue.runs)
        for owner in {*range(len(self.examples))} - {*self._near}:
            self.queue.settle(owner)
        for owner in self._near:
            self.accounts[owner].near = False
        self._near = []

    def _round(self) -> bool:
        """Advance every job by one step; returns whether any is left."""
        self._unfinished = self.rows
        try:
            if self.rows:
                self._advance()
            else:
                self._refill([])
            return bool(self.rows)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        self._shrink()
        return True

    def _advance(self) -> None:
        self.search.adapt()
        before = self.model.passes.snapshot()
        step = self.attack.step(self.search, self.state)
        owners = [owner for owner, _ in self.rows]
        self.accounts.charge(owners, self.model.passes.since(before), step.forward, step.backward)
        self.steps += 1
        claims, finished = torch.stack([step.claims, step.finished]).cpu()
        if bool((claims | finished).any()):
            self._verify(step, claims.nonzero().flatten().tolist())
            self._refill(self._leaving(finished.tolist()))

    def _verify(self, step: Step, rows: list[int]) -> None:
        """Believe a claim only if the original model errs on the clipped candidate."""
        if not rows:
            return
        owners = [self.rows[row][0] for row in rows]
        before = self.model.passes.snapshot()
        where, claimed = self._indices(owners), self._indices(rows)
        clean, labels = self.examples.images[where], self.examples.labels[where]
        threat, name = self.attack.threat, self.attack.name
        keys, bounded = self.examples.keys[where], self.attack.bounded
        proposed = check_proposal(name, step.candidates[claimed], clean, threat, keys=keys, bounded=bounded)
        candidates = clip_to_threat(proposed, clean, threat)
        margin, wrong = judged(original_logits(self.model, candidates), labels)
        self.accounts.charge(owners, self.model.passes.since(before))
        norm = perturbation_norm(candidates - clean, threat.norm).tolist()
        for index in wrong.nonzero().flatten().tolist():
            owner = owners[index]
            if self.verdicts[owner] is None:
                self.found[owner], self.margin[owner] = candidates[index], margin[index]
                self._break(rows[index], float(margin[index]), norm[index])

    def _break(self, row: int, margin: float, norm: float) -> None:
        owner, run = self.rows[row]
        self.queue.settle(owner)
        account = self.accounts[owner]
        undefined = (NAN_LOGITS,) if math.isnan(margin) else ()
        step, image = int(self.steps[row]), self.found[owner]
        self._decide(
            Verdict(owner, True, run, step, margin, norm, account.forward, account.backward, undefined, image=image)
        )

    def _survive(self, owner: int) -> None:
        account = self.accounts[owner]
        met = ((ZERO_GRADIENT, account.stuck), (NAN_GRADIENT, account.undefined))
        symptoms = tuple(name for name, seen in met if seen)
        margin = float(self.margin[owner])
        self._decide(Verdict(owner, False, -1, account.steps, margin, 0.0, account.forward, account.backward, symptoms))

    def _decide(self, verdict: Verdict) -> None:
        self.verdicts[verdict.example] = verdict
        if self.on_verdict is not None:
            self.on_verdict(verdict)

    def _leaving(self, finished: list[bool]) -> list[int]:
        """Rows of broken examples and of runs that have ended."""
        gone = [row for row, (owner, _) in enumerate(self.rows) if finished[row] or self.verdicts[owner] is not None]
        ended = [row for row in gone if self.verdicts[self.rows[row][0]] is None]
        if ended:
            where = self._indices(ended)
            flags = [
                self.state[name][where].tolist() if name in self.state else [False] * len(ended)
                for name in (STUCK, UNDEFINED, NEAR)
            ]
            for row, stuck, undefined, near in zip(ended, *flags, strict=True):
                self._end(row, stuck=stuck, undefined=undefined, near=near)
        return gone

    def _end(self, row: int, *, stuck: bool, undefined: bool, near: bool) -> None:
        owner, _ = self.rows[row]
        account = self.accounts[owner]
        account.steps += int(self.steps[row])
        account.stuck |= stuck
        account.undefined |= undefined
        account.near |= near
        if self.queue.end(owner):
            if account.near and self.search.precision == "fast":
                self._near.append(owner)
            else:
                self._survive(owner)

    def _refill(self, gone: list[int]) -> None:
        """Drop rows and begin waiting runs in their place, once enough slots are free."""
        left = set(gone)
        keep = [row for row in range(len(self.rows)) if row not in left]
        kept = [self.rows[row] for row in keep]
        self._unfinished = kept
        free = self.slots - len(keep)
        started = self.queue.take(free) if free * REFILL >= self.slots or not keep else []
        if not started and not gone:
            return
        self._unfinished = kept + started
        begun = self._begin(started) if started else {}
        if len(started) == len(gone) and keep:
            self.state = replaced(self.state, torch.tensor(gone), begun)
            for row, job in zip(gone, started, strict=True):
                self.rows[row] = job
            self.steps[gone] = 0
            return
        state = selected(self.state, torch.tensor(keep)) if gone and keep else self.state
        self.state = (joined(state, begun) if keep else begun) if started else state
        self.steps = np.concatenate([self.steps[keep], np.zeros(len(started), dtype=np.int64)])
        self.rows = kept + started

    def _begin(self, started: list[Job]) -> State:
        owners = [owner for owner, _ in started]
        where = self._indices(owners)
        jobs = Jobs(
            images=self.examples.images[where],
            labels=self.examples.labels[where],
            keys=self.examples.keys[where],
            runs=self._indices([run for _, run in started]),
            logits=self.examples.logits[where],
        )
        before = self.model.passes.snapshot()
        state = self.attack.begin(self.search, jobs, self.seed)
        self.accounts.charge(owners, self.model.passes.since(before))
        return state

    def _shrink(self) -> None:
        """Out of memory: begin the unfinished runs again, half as many at a time."""
        if min(self.slots, len(self._unfinished)) <= 1:
            raise CellError(
                f"attack {self.attack.name!r}: one example alone does not fit into the memory of "
                f"{self.examples.images.device}; free memory or use a larger device"
            )
        self.slots = self.attack.fitting = min(self.slots, len(self._unfinished)) // 2
        self.queue.again(self._unfinished)
        self.state, self.rows, self.steps = {}, [], self.steps[:0]
        if self.examples.images.device.type == "cuda":
            torch.cuda.empty_cache()

    def _indices(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, dtype=torch.int64, device=self.examples.labels.device)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
