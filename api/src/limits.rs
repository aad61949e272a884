//! `GET /limits`: what the caller's tenant may have at most, and what it has.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::identity::Caller;
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;

/// The limits of a tenant. A `max` that is null is no limit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitsDocument {
    tenant: String,
    /// Exports that have not ended.
    queued: Used,
    /// Exports that have begun and have not ended. More of them wait.
    running: Used,
    /// Rows of the exports that were completed in the last 24 hours.
    rows_per_day: Used,
    /// Bytes in the object store of the same.
    bytes_per_day: Used,
    requests_per_second: RequestsPerSecond,
    /// Shards of one export that are worked on at a time.
    parallelism: Max,
    /// Event streams that are open. They are counted only where there is a limit.
    streams: Used,
    planner_cost: MaxCost,
}

#[derive(Debug, Serialize, ToSchema)]
struct Used {
    max: Option<u64>,
    used: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RequestsPerSecond {
    max: Option<u32>,
    /// Requests at once after a pause.
    burst: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Max {
    max: Option<u16>,
}

#[derive(Debug, Serialize, ToSchema)]
struct MaxCost {
    /// Of the query of an export, as `EXPLAIN` estimates it.
    max: Option<f64>,
}

/// Get the tenant's limits.
///
/// With what it has of them at the moment. The header fields `RateLimit` and `RateLimit-Policy` tell of requests.
#[utoipa::path(
    get, path = "/limits", operation_id = "inspect_limits", tag = "operation",
    responses((status = 200, description = "The limits.", body = LimitsDocument)),
)]
pub(crate) async fn inspect(
    State(app): State<Arc<AppState>>,
    caller: Caller,
) -> Result<Json<LimitsDocument>, RouteError> {
    let limits = app.tenant_gate.of(&caller.tenant);
    let usage = timeout::ledger(app.ledger.usage_of(&caller.tenant)).await?;
    let rate = limits.request_rate();
    Ok(Json(LimitsDocument {
        tenant: caller.tenant.clone(),
        queued: Used { max: limits.queued.map(u64::from), used: Some(usage.queued) },
        running: Used { max: limits.running.map(u64::from), used: Some(usage.running) },
        rows_per_day: Used { max: limits.rows_per_day, used: Some(usage.rows_of_day) },
        bytes_per_day: Used { max: limits.bytes_per_day, used: Some(usage.bytes_of_day) },
        requests_per_second: RequestsPerSecond {
            max: rate.map(|rate| rate.per_second),
            burst: rate.map(|rate| rate.burst),
        },
        parallelism: Max { max: limits.parallelism },
        streams: Used { max: limits.streams.map(u64::from), used: limits.streams.map(|_| usage.streams) },
        planner_cost: MaxCost { max: limits.planner_cost },
    }))
}
