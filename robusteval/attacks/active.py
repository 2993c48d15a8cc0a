"""The engine: run an attack's jobs in batches that stay full until the work runs out.

An example leaves the moment one of its candidates is verified by the original model in float32 on the clipped image. Its
place, and that of every run that has ended, is filled with the next waiting run. While examples wait, each has one run
at a time, because most runs after the first are never needed; when none wait, the remaining runs of the surviving
examples stand side by side.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from robusteval.attacks.geometry import clip_to_threat
from robusteval.attacks.jobs import AnyJobAttack, Jobs, State, Step, joined, selected
from robusteval.models.classifier import Classifier
from robusteval.models.search import SearchModel


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
    return _Engine(attack, model, (images, labels, keys), seed).run()


class _Engine:
    """One attack on N examples. A row is a job in the current batch."""

    def __init__(
        self, attack: AnyJobAttack, model: Classifier, examples: tuple[Tensor, Tensor, Tensor], seed: int
    ) -> None:
        self.attack = attack
        self.model = model
        self.search = SearchModel(model)
        self.images, self.labels, self.keys = examples
        self.seed = seed
        self.found = self.images.clone()
        self.runs = attack.runs(model.classes)
        self.waiting = deque(range(len(self.labels)))
        self.next_run = [0] * len(self.labels)
        self.broken = [False] * len(self.labels)
        self.logits = self.images.new_zeros(len(self.labels), model.classes)
        self.state: State | None = None
        self.rows: list[tuple[int, int]] = []

    def run(self) -> Tensor:
        self._fill()
        while self.rows:
            assert self.state is not None
            step = self.attack.step(self.search, self.state)
            self._verify(step)
            self._retire(step)
            self._fill()
        return self.found

    def _verify(self, step: Step) -> None:
        """Believe a claim only if the original model errs on the clipped candidate."""
        claimed = step.claims.nonzero().flatten()
        if not len(claimed):
            return
        owners = torch.tensor([self.rows[row][0] for row in claimed.tolist()], device=claimed.device)
        candidates = clip_to_threat(step.candidates[claimed], self.images[owners], self.attack.threat)
        with torch.no_grad():
            wrong = self.model(candidates).argmax(dim=1) != self.labels[owners]
        for index in wrong.nonzero().flatten().tolist():
            owner = int(owners[index])
            if not self.broken[owner]:
                self.broken[owner] = True
                self.found[owner] = candidates[index]

    def _retire(self, step: Step) -> None:
        """Drop the rows of broken examples and of runs that have ended."""
        finished = step.finished.tolist()
        keep = []
        for row, (owner, _) in enumerate(self.rows):
            if self.broken[owner]:
                continue
            if finished[row]:
                if self.next_run[owner] < self.runs and owner not in self.waiting:
                    self.waiting.appendleft(owner)
                continue
            keep.append(row)
        if len(keep) < len(self.rows):
            assert self.state is not None
            where = torch.tensor(keep, dtype=torch.int64, device=self.labels.device)
            self.state = selected(self.state, where) if keep else None
            self.rows = [self.rows[row] for row in keep]

    def _fill(self) -> None:
        """Begin as many waiting runs as there are free slots."""
        free = self.attack.slots - len(self.rows)
        starting: list[tuple[int, int]] = []
        while len(starting) < free and (owner := self._next_owner(starting)) is not None:
            starting.append((owner, self.next_run[owner]))
            self.next_run[owner] += 1
        if not starting:
            return
        device = self.labels.device
        fresh = torch.tensor(sorted({owner for owner, run in starting if run == 0}), dtype=torch.int64, device=device)
        if len(fresh):
            with torch.no_grad():
                self.logits[fresh] = self.model(self.images[fresh])
        owners = torch.tensor([owner for owner, _ in starting], device=device)
        jobs = Jobs(
            images=self.images[owners],
            labels=self.labels[owners],
            keys=self.keys[owners],
            runs=torch.tensor([run for _, run in starting], device=device),
            logits=self.logits[owners],
        )
        self.state = joined(self.state, self.attack.begin(self.search, jobs, self.seed))
        self.rows += starting

    def _next_owner(self, starting: list[tuple[int, int]]) -> int | None:
        """The example whose next run begins: a waiting one, else the one under way with the fewest runs begun."""
        while self.waiting:
            owner = self.waiting.popleft()
            if not self.broken[owner]:
                return owner
        under_way = {owner for owner, _ in (*self.rows, *starting)}
        open_ = [owner for owner in under_way if not self.broken[owner] and self.next_run[owner] < self.runs]
        return min(open_, key=lambda owner: (self.next_run[owner], owner)) if open_ else None
