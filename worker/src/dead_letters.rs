//! The command `polyglot-worker dead-letters`: it lists the messages that no worker could process, and removes them or
//! puts them back. No export depends on these messages: the ledger has the work, and workers poll it too.

use polyglot_ledger::queue::{Broker, DeadLetter, DeadLetterAction, QueueError};
use polyglot_ledger::{Connections, Ledger, with_timeout};
use polyglot_runtime::config::Environment;

/// The action on each dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Subcommand)]
pub(crate) enum Action {
    /// List the messages that no worker could process, each with the reason (the default)
    #[command(skip)]
    List,
    /// Put those back whose export is not finished, and remove those whose export has ended or is unknown; messages that are
    /// not of this service stay
    Redrive,
    /// Remove messages that are not of this service
    Discard,
}

/// Applies the action to every dead letter and prints a line for each.
pub(crate) async fn run(env: &Environment, action: Action) -> Result<(), Box<dyn std::error::Error>> {
    let config = Connections::from_environment(env)?;
    let ledger = Ledger::new(&config.database_url, 1, "polyglot-dead-letters")?;
    let broker = Broker::of(&config, "polyglot-dead-letters").ok_or(QueueError::NoBroker)?;
    let mut failure = None;
    let seen = broker
        .dead_letters(async |letter| match decide(&ledger, action, letter).await {
            Ok((fate, text)) => {
                let export = letter.export_id.map_or_else(|| format!("{} bytes", letter.bytes), |id| id.to_string());
                println!("{export}: {}: {text}", letter.reason);
                fate
            }
            Err(error) => {
                failure = Some(error);
                DeadLetterAction::Keep
            }
        })
        .await?;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    println!("{seen} dead letters in {}", broker.dead_letter_queue());
    Ok(())
}

/// Returns what becomes of a dead letter, and the text to print.
async fn decide(
    ledger: &Ledger,
    action: Action,
    letter: &DeadLetter,
) -> Result<(DeadLetterAction, &'static str), polyglot_ledger::LedgerError> {
    let Some(id) = letter.export_id else {
        return Ok(match action {
            Action::Discard => (DeadLetterAction::Discard, "not a message of this service, removed"),
            Action::List | Action::Redrive => (DeadLetterAction::Keep, "not a message of this service, kept"),
        });
    };
    let active = with_timeout(ledger.status(id)).await?.is_some_and(polyglot_core::status::Status::is_active);
    Ok(match (action, active) {
        (Action::Redrive, true) => (DeadLetterAction::Redrive, "put back into the queue"),
        (Action::Redrive, false) => (DeadLetterAction::Discard, "the export has ended or is unknown, removed"),
        (Action::List | Action::Discard, true) => (DeadLetterAction::Keep, "the export is not finished"),
        (Action::List | Action::Discard, false) => (DeadLetterAction::Keep, "the export has ended or is unknown"),
    })
}
