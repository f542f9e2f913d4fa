"""Plans: as clients send them, and resolved, with every default filled in."""

from __future__ import annotations

from api.schemas.records import resolved_schema_of, schema_of
from shared.catalog.params import GenerateParams, Plan, RoundPlan

GenerateParamsSchema = schema_of(GenerateParams)
RoundPlanSchema = schema_of(RoundPlan)
PlanSchema = schema_of(Plan)

ResolvedRoundSchema = resolved_schema_of(RoundPlan, "ResolvedRound")
ResolvedPlanSchema = resolved_schema_of(Plan, "ResolvedPlan", rounds=ResolvedRoundSchema)
