//! `polyglot-api check`: connects to everything that the configuration names and says, line by line, what is right, what is
//! missing and what is too much. The only thing that it changes is an object of a few bytes, which it deletes again.

mod finding;
mod ledger;
mod object_store;
mod source;

use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_ledger::queue::Broker;
use tokio::time::timeout;

use self::finding::Findings;
use crate::config::Config;
use crate::identity::AuthMode;

/// Longest time for each of the servers.
const LIMIT: Duration = Duration::from_secs(20);

/// Checks everything, prints the lines as they come, and returns whether the service would work with these servers.
pub async fn check(config: &Config) -> bool {
    let mut findings = Findings::default();
    findings.begin("access");
    if config.access.auth == AuthMode::On {
        findings.right("clients have to say who they are");
    } else {
        findings.note("AUTH is off: everyone who can reach the api can export");
    }
    in_time("ledger", &mut findings, async |findings| ledger::check(config, findings).await).await;
    in_time("broker", &mut findings, async |findings| broker(config, findings).await).await;
    in_time("object store", &mut findings, async |findings| object_store::check(config, findings).await).await;
    in_time("source", &mut findings, async |findings| source::check(config, findings).await).await;
    findings.finish()
}

/// Bounds the check of one server, which may be one that never answers.
async fn in_time(part: &'static str, findings: &mut Findings, check: impl AsyncFnOnce(&mut Findings)) {
    findings.begin(part);
    let checked = timeout(LIMIT, Box::pin(check(findings))).await;
    if checked.is_err() {
        findings.missing(format!("there was no answer within {} s", LIMIT.as_secs()));
    }
}

async fn broker(config: &Config, findings: &mut Findings) {
    let Some(broker) = Broker::of(&config.connections, format!("polyglot-api check {}", std::process::id())) else {
        findings.note("AMQP_URL is empty: there is no broker, and workers look for work every half second");
        return;
    };
    match broker.check().await {
        Ok(depths) => {
            findings.right(format!("connected; the queue {} has {} messages", broker.queue, depths.tokens));
            if depths.dead > 0 {
                let words = "messages that no worker could process: see `polyglot-worker dead-letters`";
                findings.note(format!("{} has {} {words}", broker.dead_letter_queue(), depths.dead));
            }
        }
        Err(error) => findings.missing(format!("AMQP_URL: {}", chain(&error))),
    }
}
