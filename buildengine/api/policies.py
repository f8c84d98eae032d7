"""Source policies between messages and values.

Facts: BuildKit solver/llbsolver/solver.go (validateSourcePolicy), sourcepolicy/pb.
"""

from __future__ import annotations

from buildengine.api import policy_pb2
from buildengine.errors import UserError
from buildengine.sourcepolicy import Action, Condition, Constraint, MatchType, Policy, Rule, Selector, Update


def policy(message: policy_pb2.Policy) -> Policy:
    """Raises UserError."""
    return Policy(rules=tuple(map(_rule, message.rules)))


def policy_message(value: Policy) -> policy_pb2.Policy:
    return policy_pb2.Policy(version=1, rules=map(_rule_message, value.rules))


def _rule(message: policy_pb2.Rule) -> Rule:
    if not message.HasField("selector"):
        raise UserError("invalid nil selector in policy")
    selector, updates = message.selector, message.updates
    try:
        return Rule(
            action=Action(message.action),
            selector=Selector(
                identifier=selector.identifier,
                match_type=MatchType(selector.match_type),
                constraints=tuple(
                    Constraint(key=each.key, value=each.value, condition=Condition(each.condition))
                    for each in selector.constraints
                ),
            ),
            update=Update(identifier=updates.identifier, attrs=dict(updates.attrs))
            if message.HasField("updates")
            else None,
        )
    except ValueError as error:
        raise UserError(f"source policy: rule for {selector.identifier}: unknown type: {error}") from error


def _rule_message(rule: Rule) -> policy_pb2.Rule:
    message = policy_pb2.Rule(action=policy_pb2.PolicyAction.ValueType(rule.action.value))
    message.selector.identifier = rule.selector.identifier
    message.selector.match_type = policy_pb2.MatchType.ValueType(rule.selector.match_type.value)
    for constraint in rule.selector.constraints:
        condition = policy_pb2.AttrMatch.ValueType(constraint.condition.value)
        message.selector.constraints.add(key=constraint.key, value=constraint.value, condition=condition)
    if rule.update is not None:
        message.updates.identifier = rule.update.identifier
        message.updates.attrs.update(rule.update.attrs)
    return message
