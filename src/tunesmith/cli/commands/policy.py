"""`tunesmith policy`: when a recipe is retrained by itself."""

from __future__ import annotations

from typing import Any

import click
import grpc
from rich.console import RenderableType

from tunesmith.cli.commands.tune import FOLLOW_UPS
from tunesmith.cli.connection import Connection, connect
from tunesmith.cli.options import Globals, duration, global_options, set_option, setting_values
from tunesmith.cli.problems import code_of
from tunesmith.cli.render import Output, ago, duration_text, facts, number, plain, settings_text, table
from tunesmith_proto.trainer.v1 import policies_pb2, trainer_pb2

MAX_ROUNDS = 4
"""Times that a change is made anew because somebody else changed the policy meanwhile."""


@click.command("policy")
@click.argument("recipe", default="")
@click.option("--enable/--disable", default=None, help="Off until it is enabled.")
@click.option("--min-new", type=click.IntRange(0), help="Examples that no run was trained on; 0: does not count.")
@click.option("--min-growth", type=click.FloatRange(0), help="Or so many per trained example: 0.1 is a tenth more.")
@click.option("--cool-down", type=duration, help="Rest after a run, such as 90s, 10m, 6h.")
@click.option("--every", type=duration, help="Start only at multiples of this, in UTC (1d: midnight); 0: any time.")
@click.option("--base-model", help="builtin:tiny, a Hub id or a folder; empty: the recipe's.")
@set_option
@click.option("--then", type=click.Choice(list(FOLLOW_UPS)), help="What follows a run.")
@click.option("--priority", type=click.IntRange(-100, 100), help="Of the jobs that the policy starts.")
@global_options()
@click.pass_obj
def policy(options: Globals, /, recipe: str, settings: tuple[str, ...], **changes: Any) -> None:
    """Show or set when RECIPE is retrained by itself (all recipes by default).

    A policy watches what is collected: when enough is new it starts a run, judges it and promotes what passes. A
    setting given as `--set NAME=` goes back to the recipe's own.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    values = setting_values(settings)
    if not recipe and (given or values):
        raise click.UsageError("name the RECIPE whose policy to set")
    out = Output(json=options.json)
    with connect(options) as connection:
        if not recipe:
            reply: policies_pb2.ListPoliciesResponse = connection.call(
                connection.policies.ListPolicies, policies_pb2.ListPoliciesRequest()
            )
            return out.result(reply, _table(reply))
        if given or values:
            shown = _set(connection, recipe, given, values)
        else:
            shown = connection.call(connection.policies.GetPolicy, policies_pb2.GetPolicyRequest(recipe=recipe))
        return out.result(shown, _facts(shown.policy, shown.standing))


def _set(
    connection: Connection, recipe: str, given: dict[str, Any], values: dict[str, Any]
) -> policies_pb2.SetPolicyResponse:
    """Change what was given and keep the rest, also when others change it at the same time."""
    for left in reversed(range(MAX_ROUNDS)):
        now: policies_pb2.GetPolicyResponse = connection.call(
            connection.policies.GetPolicy, policies_pb2.GetPolicyRequest(recipe=recipe)
        )
        request = policies_pb2.SetPolicyRequest(policy=_changed(now.policy, given, values), expected_rev=now.policy.rev)
        try:
            reply: policies_pb2.SetPolicyResponse = connection.call(connection.policies.SetPolicy, request)
        except grpc.RpcError as error:
            if code_of(error) != "ABORTED" or not left:
                raise
        else:
            return reply
    raise AssertionError("the last round returns or raises")


def _changed(policy: policies_pb2.Policy, given: dict[str, Any], values: dict[str, Any]) -> policies_pb2.Policy:
    made = policies_pb2.Policy()
    made.CopyFrom(policy)
    fields = {
        "enable": "enabled",
        "min_new": "min_new_examples",
        "min_growth": "min_growth_share",
        "cool_down": "cool_down_s",
        "every": "every_s",
        "base_model": "base_model",
        "priority": "priority",
    }
    for name, field in fields.items():
        if name in given:
            setattr(made, field, given[name])
    if "then" in given:
        made.follow_up = FOLLOW_UPS[given["then"]]
    for name, value in values.items():
        if value == "":
            made.settings.fields.pop(name, None)
        else:
            made.settings[name] = value
    return made


def waiting_line(standing: policies_pb2.PolicyStanding) -> str:
    """`waits: 12 of 50 new examples`, or what it does."""
    if standing.reason == "start":
        return f"starts a run: {standing.message}"
    return standing.message if standing.reason == "disabled" else f"waits: {standing.message}"


def _table(reply: policies_pb2.ListPoliciesResponse) -> RenderableType:
    rows = [
        [
            entry.policy.recipe,
            "on" if entry.policy.enabled else "off",
            _threshold(entry.policy),
            duration_text(entry.policy.cool_down_s),
            duration_text(entry.policy.every_s),
            waiting_line(entry.standing) if entry.policy.enabled else "",
            _last_run(entry.standing),
        ]
        for entry in reply.policies
    ]
    return table("", ["recipe", "policy", "enough", "cool-down", "every", "now", "last run"], rows)


def _facts(policy: policies_pb2.Policy, standing: policies_pb2.PolicyStanding) -> RenderableType:
    return facts(
        {
            "recipe": policy.recipe,
            "policy": "on" if policy.enabled else "off",
            "now": waiting_line(standing) if policy.enabled else "",
            "enough": _threshold(policy),
            "cool-down": duration_text(policy.cool_down_s),
            "every": duration_text(policy.every_s),
            "base model": policy.base_model,
            "settings": settings_text(policy.settings) if plain(policy.settings) else "",
            "then": trainer_pb2.FollowUp.Name(policy.follow_up).removeprefix("FOLLOW_UP_").lower(),
            "priority": policy.priority,
            "next dataset": standing.dataset_id,
            "trained examples": standing.num_trained_examples or "",
            "last run": _last_run(standing),
        }
    )


def _threshold(policy: policies_pb2.Policy) -> str:
    words = [f"{policy.min_new_examples} new examples"] if policy.min_new_examples else []
    if policy.min_growth_share:
        words.append(f"{number(policy.min_growth_share * 100)} % growth")
    return " or ".join(words) or "1 new example"


def _last_run(standing: policies_pb2.PolicyStanding) -> str:
    last = standing.last_run
    if not last.dataset_id:
        return ""
    if not last.outcome:
        return f"job {last.job_id} goes on" if last.job_id else "is being started"
    return f"{last.outcome} {ago(last.end_time)}: {last.detail}"
