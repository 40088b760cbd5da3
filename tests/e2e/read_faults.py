"""Traces as they would be if reads were not as they must be: each changes a call that is right."""

from __future__ import annotations

import copy

from reads import Call, Span


def expert_loads(call: Call) -> list[Span]:
    return [x for x in call.loads if x.args["slots"] > 1]


def read_twice(call: Call) -> None:
    call.loads.insert(call.loads.index(expert_loads(call)[0]), copy.deepcopy(expert_loads(call)[0]))


def read_without_tokens(call: Call) -> None:
    loop = call.loops[0]
    del loop.args["tokens"][next(iter(loop.args["tokens"]))]


def asked_late(call: Call) -> None:
    load = expert_loads(call)[1]
    load.args["asked"] = next(t for t in call.takes if t.slot == load.slot).begin


def dense_asked_late(call: Call) -> None:
    load = call.loads[-1]
    load.args["asked"] = call.takes[-1].begin


def first_asked_before_the_router(call: Call) -> None:
    expert_loads(call)[0].args["asked"] = call.span.begin


def out_of_order(call: Call) -> None:
    call.loads[1], call.loads[2] = call.loads[2], call.loads[1]


def overwritten(call: Call) -> None:
    for load in call.loads:
        load.args["buffer"] = 0
        load.track = (2, 0)


FAULTS = [
    read_twice,
    read_without_tokens,
    asked_late,
    dense_asked_late,
    first_asked_before_the_router,
    out_of_order,
    overwritten,
]
