//! The check of the ledger: reachable, and migrated or able to be.

use polyglot_core::failure::chain;
use polyglot_ledger::{Ledger, SchemaState};

use super::finding::Findings;
use crate::config::Config;

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    let ledger = match Ledger::new(&config.connections.database_url, 1, "polyglot-api check") {
        Ok(ledger) => ledger,
        Err(error) => return findings.missing(format!("DATABASE_URL: {}", chain(&error))),
    };
    match ledger.schema_state().await {
        Ok(state) => report(&state, findings),
        Err(error) => findings.missing(format!("DATABASE_URL: {}", chain(&error))),
    }
}

fn report(state: &SchemaState, findings: &mut Findings) {
    let SchemaState { role, database, .. } = state;
    findings.right(format!("connected to the database {database:?} as {role:?}"));
    if !state.exists && state.may_create {
        return findings.right("the schema polyglot is not there yet; the first process that starts makes it");
    }
    if !state.exists {
        return findings.missing(format!(
            "the schema polyglot is not there, and {role:?} may not create it: CREATE SCHEMA polyglot AUTHORIZATION {role:?}"
        ));
    }
    if !state.may_create {
        return findings.missing(format!(
            "{role:?} may not use or fill the schema polyglot: ALTER SCHEMA polyglot OWNER TO {role:?}"
        ));
    }
    if state.damaged > 0 {
        findings.missing(format!(
            "{} migrations were run with another content or only in part: the processes refuse to start on this schema",
            state.damaged
        ));
    }
    if state.unknown > 0 {
        findings.note(format!(
            "{} migrations are of a newer version, with which this one may run during an upgrade",
            state.unknown
        ));
    }
    if state.not_writable > 0 {
        findings.missing(format!(
            "{role:?} may not write to {} tables of the schema polyglot; their owner is to be {role:?}",
            state.not_writable
        ));
    }
    match (state.pending, state.owned_by_others) {
        (0, _) => findings.right("the schema polyglot is up to date"),
        (pending, 0) => findings.right(format!("{pending} migrations are still to be run; the first process that starts does")),
        (pending, others) => findings.missing(format!(
            "{pending} migrations are still to be run, and {others} relations of the schema polyglot do not belong to {role:?}"
        )),
    }
}
