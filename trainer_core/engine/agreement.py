"""Whether the ranks are of one mind: what they decide from, in a few bytes, and what they were started with.

Compares; tells nobody and knows no process group.
"""

import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor, nn

from trainer_core.spec.config import Config
from trainer_core.spec.errors import UserError
from trainer_core.spec.loading import tables_of

if TYPE_CHECKING:
    from trainer_core.engine.engine import Engine

_WIDTHS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def standing(engine: "Engine", weights: bool) -> tuple[bytes, int]:
    """All that the coming decisions are made from, encoded, and its CRC-32. ``weights``: and a sum over every bit of
    them, which waits for the device."""
    known: dict[str, Any] = {
        "step": engine.step_count,
        "phase": engine.phase.value,
        "steps of the phase": engine.steps_in_phase,
        "batches": engine.batches,
        "next look": engine.probe_at,
        "state_rev": engine.state_rev,
        "attempt": engine.attempt,
        "prediction lock": engine.locked,
        "forward passes": engine.forwards,
        "predictions": [engine.predictions_entered, engine.predictions_kept, engine.predictions_undone],
        "signals": msgspec.to_builtins(engine.last),
        "training state": msgspec.to_builtins(engine.state),
        "lengths": engine.lengths.state_dict(),
        "credit": engine.budget.credit,
        "learning rate scale": engine.schedule.scale,
    }
    if weights:
        known["weights"] = checksum(engine.parameters.tensors)
    encoded = msgspec.msgpack.encode(known)
    return encoded, zlib.crc32(encoded)


def disagreement(by_rank: list[bytes]) -> str:
    """The sentence about ranks whose ``standing`` differs."""
    known = [msgspec.msgpack.decode(each) for each in by_rank]
    for rank, other in enumerate(known):
        for key, value in known[0].items():
            if msgspec.msgpack.encode(other.get(key)) != msgspec.msgpack.encode(value):
                what = f"{key} is {_short(other.get(key))} on rank {rank} and {_short(value)} on rank 0"
                return (
                    f"the ranks no longer agree: {what}. They must run the same code on machines of one kind; "
                    "go on from the last checkpoint"
                )
    return "the ranks no longer agree, and none of them can say on what"


def checksum(tensors: list[Tensor]) -> int:
    """Sum of all bits, word by word: equal tensors have equal sums, and one changed bit changes it."""
    sums = [t.detach().contiguous().view(-1).view(_WIDTHS[t.element_size()]).sum(dtype=torch.int64) for t in tensors]
    return int(torch.stack(sums).sum()) if sums else 0


def started_with(
    model: nn.Module, optimizer: torch.optim.Optimizer, config: Config, others: dict[str, Any]
) -> dict[str, str]:
    """What must be the same on every rank before step 0, by name."""
    said = {f"[{s}] {key}": repr(value) for s, keys in tables_of(config).items() for key, value in keys.items()}
    del said["[dataset] folder"]  # another machine may have it elsewhere
    for name, p in [*model.named_parameters(), *model.named_buffers()]:
        said[f"the model's {name}"] = f"{tuple(p.shape)} of {p.dtype}"
        if isinstance(p, nn.Parameter) and not p.requires_grad:
            said[f"the model's {name}"] += ", frozen"
    said["the optimizer"] = type(optimizer).__name__
    for i, group in enumerate(optimizer.param_groups):
        said[f"the optimizer's group {i}"] = f"{len(group['params'])} tensors"
        said |= {f"{k} of the optimizer's group {i}": str(v) for k, v in group.items() if k != "params"}
    kept = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    said["the optimizer's state"] = f"checksum {checksum(kept)}"
    return said | {key: str(value) for key, value in others.items()}


def check_same_start(by_rank: list[dict[str, str]]) -> None:
    """Raises UserError naming the first thing that a rank was started with and rank 0 was not."""
    first = by_rank[0]
    for rank, other in enumerate(by_rank):
        for key in [*first, *other]:
            here, there = first.get(key, "absent"), other.get(key, "absent")
            if here != there:
                raise UserError(
                    f"rank {rank} was not started like rank 0: {key} is {_short(there)} there and {_short(here)} on "
                    "rank 0"
                )


def refuse_wrapped(model: nn.Module) -> None:
    """Raises UserError for a model that is wrapped or sharded for several processes by something else, or is none."""
    if not isinstance(model, nn.Module):
        raise UserError(f"model = {_short(model)}: must be a torch.nn.Module")
    names = {c.__name__ for m in model.modules() for c in type(m).__mro__}
    if "DistributedDataParallel" in names:
        raise UserError(
            "the model is wrapped in DistributedDataParallel: give the module inside it (model.module); the trainer "
            "averages the gradients itself, once a step"
        )
    sharded = next((name for name in _SHARDED if name in names), None)
    if sharded or any(type(p).__name__ == "DTensor" or type(p.data).__name__ == "DTensor" for p in model.parameters()):
        raise UserError(
            "the model's parameters are sharded over processes (FSDP, tensor parallel): predictions need the whole of "
            "each on every rank; give the unsharded module"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
