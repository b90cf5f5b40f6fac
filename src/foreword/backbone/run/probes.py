"""Probes: what leaves a model's result as it is, tried on a few tokens and never looked up."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor

from foreword.backbone.example import Example, Line
from foreword.backbone.inside.agreement import EXACT, agree, states_agree
from foreword.backbone.run import single_stack
from foreword.backbone.run.examples import lower_states, prefill, states
from foreword.backbone.run.layers import WHOLE, LayerRange
from foreword.backbone.run.network import Network
from foreword.errors import UserError
from foreword.injection import NOTHING, Mixture

FIRST, OTHER, SECOND = (3, 1, 2, 4), (1, 4, 3, 3), (4, 2)
LAST = [(0, 3), (1, 1)]
"""Rows of tokens that are packed, the second beside either first, and where each one ends."""

Asked = ParamSpec("Asked")


def _trying(
    probe: Callable[Concatenate[Network, Asked], bool],
) -> Callable[Concatenate[Network, Asked], bool]:
    """Run a probe without gradients; where the model's code raises, the answer is no."""

    @wraps(probe)
    def tried(network: Network, /, *args: Asked.args, **kwargs: Asked.kwargs) -> bool:
        try:
            with torch.no_grad():
                return probe(network, *args, **kwargs)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception:  # of any kind: the model's code is another's
            return False

    return tried


@_trying
def can_prefill(network: Network, *, pack: bool) -> bool:
    """Try whether reading on after stored keys and values equals reading everything.

    True of causal models whose sites hold all that they have read; false of bidirectional
    models, and where no attention site is reached.
    """
    if not network.is_causal or not network.sites or (not pack and _goes_around(network)):
        return False  # what can be packed has no other way
    whole = Example((3, 1, 2, 4), 4, ((),), ((0, -1),))
    prefilled = prefill(network, NOTHING, (3, 1))
    return states_agree(
        network.model,
        lambda: states(network, [whole], NOTHING, 0, WHOLE, pack=pack),
        states(network, [whole.after(2)], prefilled, 0, WHOLE, pack=pack),
    )


@_trying
def can_pack(network: Network) -> bool:
    """Try whether rows may lie end to end in one row of tokens, separated by attention alone.

    True of causal transformers that take positions and have no other way from token to token.
    """
    if not network.positions_follow_prefix or not network.sites:
        return False
    packed, beside_another = _packed(network, FIRST), _packed(network, OTHER)
    if _differ(packed[1], beside_another[1]):
        return False
    rows = [Line(FIRST), Line(SECOND)]

    def padded() -> Tensor:
        return single_stack.run_padded(network, rows, Mixture((NOTHING,), (0, 0))).at(LAST)

    return states_agree(network.model, padded, packed)


def _goes_around(network: Network) -> bool:
    """Try whether a token sees others by another way than attention: a convolution, a recurrence.

    Of two packed rows the second one's states may not depend on the first at all, however little.
    """
    if not network.positions_follow_prefix:
        return False
    return _differ(_packed(network, FIRST)[1], _packed(network, OTHER)[1])


def _packed(network: Network, first: tuple[int, ...]) -> Tensor:
    """Return the last states of two packed rows, of which the second is always the same."""
    rows = [Line(first), Line(SECOND)]
    return single_stack.run_packed(network, rows, Mixture((NOTHING,), (0, 0))).at(LAST)


def _differ(one: Tensor, other: Tensor) -> bool:
    return not bool((one - other).abs().max() <= 1e-5 * one.abs().max())


@_trying
def can_pad(network: Network) -> bool:
    """Try whether a row's states are the same beside a longer one, whose padding it is given.

    False of models that mix all tokens of a row (FNet, ConvBERT), or part experts among all tokens
    of a pass. A causal model never sees what follows. In half types, whose rounding hides as much
    as a convolution adds, a row may not depend on what its padding and the row beside it are.
    """
    if network.is_causal:
        return True
    short, long, other = (
        Example(ids, 2, ((1,),), ((0, 0),))
        for ids in ((3, 4), (4, 2, 3, 1, 4) * 3, (1, 3, 4, 4, 2) * 3)
    )

    def alone() -> Tensor:
        return states(network, [short], NOTHING, 0, WHOLE, pack=False)

    def beside(longer: Example, pad: int) -> Tensor:
        padded = copy(network)
        padded.pad = pad
        return states(padded, [longer, short], NOTHING, 0, WHOLE, pack=False)[1:]

    together = beside(long, network.pad)
    if together.dtype in EXACT:
        return not _differ(alone(), together)
    another = network.pad % 4 + 1
    if _differ(together, beside(other, another)):
        return False
    return states_agree(network.model, alone, together)


@_trying
def can_pad_left(network: Network) -> bool:
    """Try whether a causal model's row is the same behind padding, as ``generate`` lays rows out.

    False of models that ignore what their mask says (RWKV), or number tokens by what is stored.
    """
    rows = torch.tensor([FIRST, (network.pad, network.pad, *SECOND)], device=network.device)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]], device=network.device)

    def last(ids: Tensor, mask: Tensor) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in network.accepted:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        return single_stack.run_layers(network, inputs, WHOLE, None)[-1:, -1]

    padded = last(rows, mask)
    return states_agree(network.model, lambda: last(rows[1:, 2:], mask[1:, 2:]), padded)


@dataclass(frozen=True)
class FirstRun:
    """What came of one short row: the size of its states, or why a model cannot be run."""

    width: int = 0
    why_not: str | None = None


def first_run(network: Network) -> FirstRun:
    """Run one short row, and where text is written try that no token sees those after it."""
    branch, target = ((1,), (0, 0)) if network.fills_masks else ((), (0, -1))
    row = Example((3, 4), 2, (branch,), (target,))
    longer = replace(row, branches=((1, 2),))
    try:
        with torch.no_grad():
            found = states(network, [row], NOTHING, 0, WHOLE, pack=False)
            network.logits(found)
            exact = found.dtype in EXACT  # others round more than they tell
            if network.can_generate and exact and not found.is_meta:
                after = states(network, [longer], NOTHING, 0, WHOLE, pack=False)
                if not agree(after, found):
                    return FirstRun(why_not="a token's state changes with those after it")
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any kind: the model's code is another's
        said = " ".join(str(error).split())[:120]
        return FirstRun(why_not=f"{type(error).__name__}: {said}")
    return FirstRun(found.shape[1])


@_trying
def can_split(network: Network, *, pack: bool) -> bool:
    """Try whether running the layers below one, and then those above, equals running all."""
    rows = [Example((3, 1, 2, 4), 4, ((),), ((0, -1),)), Example((3, 4), 2, ((),), ((0, -1),))]

    def whole() -> Tensor:
        return states(network, rows, NOTHING, 0, WHOLE, pack=pack)

    if network.stack is None or not network.stack.passes(whole):
        return False
    if network.is_causal and network.sites and not pack and _goes_around(network):
        return False
    lead, below = lower_states(network, rows, NOTHING, 1, LayerRange(last=1), pack=pack)
    given = tuple(each.to(network.device) for each in (lead, *below))
    above = states(network, rows, NOTHING, 1, LayerRange(1, given), pack=pack)
    return states_agree(network.model, whole, above)
