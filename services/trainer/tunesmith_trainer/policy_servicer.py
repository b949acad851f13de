"""protobuf <-> the use cases of policies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.policies import Policy
from tunesmith.recipes import all_recipes
from tunesmith.rpc.convert import from_struct, to_struct, to_timestamp
from tunesmith_proto.trainer.v1 import policies_pb2, policies_pb2_grpc
from tunesmith_trainer.messages import FOLLOW_UPS
from tunesmith_trainer.retraining import Policies, Standing


class PolicyServicer(policies_pb2_grpc.PolicyServiceServicer):
    """Shows and sets policies; `look` has them looked at soon."""

    def __init__(self, policies: Policies, look: Callable[[], None]) -> None:
        self._policies = policies
        self._look = look

    async def GetPolicy(self, request: policies_pb2.GetPolicyRequest, context: Any) -> policies_pb2.GetPolicyResponse:
        standing = await asyncio.to_thread(self._policies.standing, request.recipe)
        return policies_pb2.GetPolicyResponse(policy=policy_message(standing), standing=standing_message(standing))

    async def SetPolicy(self, request: policies_pb2.SetPolicyRequest, context: Any) -> policies_pb2.SetPolicyResponse:
        standing = await asyncio.to_thread(self._set, request)
        return policies_pb2.SetPolicyResponse(policy=policy_message(standing), standing=standing_message(standing))

    def _set(self, request: policies_pb2.SetPolicyRequest) -> Standing:
        expected = request.expected_rev if request.HasField("expected_rev") else None
        policy = policy_of(request.policy)
        self._policies.set(policy, expected_rev=expected)
        standing = self._policies.standing(policy.recipe)
        self._look()
        return standing

    async def ListPolicies(
        self, request: policies_pb2.ListPoliciesRequest, context: Any
    ) -> policies_pb2.ListPoliciesResponse:
        found = await asyncio.to_thread(lambda: [self._policies.standing(name) for name in sorted(all_recipes())])
        return policies_pb2.ListPoliciesResponse(
            policies=[
                policies_pb2.ListPoliciesResponse.Entry(policy=policy_message(one), standing=standing_message(one))
                for one in found
            ]
        )


def policy_of(message: policies_pb2.Policy) -> Policy:
    """The policy that a client sent; InvalidInput for a follow-up that is not known."""
    if message.follow_up not in FOLLOW_UPS:
        raise InvalidInput(
            f"policy.follow_up={message.follow_up} is unknown; known: 0 to {max(FOLLOW_UPS)}",
            metadata={"field": "policy.follow_up"},
        )
    return Policy(
        recipe=message.recipe,
        enabled=message.enabled,
        min_new_examples=message.min_new_examples,
        min_growth_share=message.min_growth_share,
        cool_down_s=message.cool_down_s,
        every_s=message.every_s,
        base_model=message.base_model,
        settings=from_struct(message.settings),
        follow_up=FOLLOW_UPS[message.follow_up],
        priority=message.priority,
    )


def policy_message(standing: Standing) -> policies_pb2.Policy:
    """A policy as clients see it."""
    policy = standing.record.policy
    return policies_pb2.Policy(
        recipe=policy.recipe,
        enabled=policy.enabled,
        min_new_examples=policy.min_new_examples,
        min_growth_share=policy.min_growth_share,
        cool_down_s=policy.cool_down_s,
        every_s=policy.every_s,
        base_model=policy.base_model,
        settings=to_struct(policy.settings),
        follow_up=f"FOLLOW_UP_{policy.follow_up.upper()}",
        priority=policy.priority,
        rev=standing.record.policy_rev,
    )


def standing_message(standing: Standing) -> policies_pb2.PolicyStanding:
    """Where a policy stands, as clients see it."""
    situation, decision, last = standing.situation, standing.decision, standing.record.last
    message = policies_pb2.PolicyStanding(
        reason=decision.reason,
        message=decision.message,
        dataset_id=situation.candidate,
        num_new_examples=situation.num_new,
        num_needed_examples=standing.record.policy.num_needed(situation.num_trained),
        num_trained_examples=situation.num_trained,
    )
    if decision.until:
        message.until.CopyFrom(to_timestamp(decision.until))
    if last is not None:
        message.last_run.CopyFrom(
            policies_pb2.PolicyRun(
                dataset_id=last.dataset_id,
                job_id=last.job_id,
                start_time=to_timestamp(last.started_at),
                end_time=to_timestamp(last.ended_at) if last.ended_at else None,
                outcome=last.outcome,
                detail=last.detail,
            )
        )
    return message
