//! `polyglot-worker dead-letters`: a person's look at the messages that no worker could do anything with, and what the
//! person decides about them. No export depends on it: the ledger has the work, and workers look there too.

use polyglot_export::config::{Connections, Environment};
use polyglot_export::ledger::{Ledger, in_time};
use polyglot_export::queue::{Broker, DeadLetter, LetterFate, QueueError};

pub(crate) const USAGE: &str = "\
polyglot-worker                       takes exports from the queue and does them
polyglot-worker health                says whether the worker that listens on METRICS_PORT here answers
polyglot-worker dead-letters          lists the messages that no worker could do anything with, with the reason
polyglot-worker dead-letters redrive  puts those back whose export is not finished, and removes those whose export has
                                      ended or is unknown; what is no message of this service stays
polyglot-worker dead-letters discard  removes what is no message of this service";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    List,
    Redrive,
    Discard,
}

impl Action {
    /// What the words after `dead-letters` mean.
    pub(crate) fn of(words: &[String]) -> Option<Self> {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Some(Self::List),
            ["redrive"] => Some(Self::Redrive),
            ["discard"] => Some(Self::Discard),
            _ => None,
        }
    }
}

/// Goes through the dead letters and prints a line for each.
pub(crate) async fn run(env: &Environment, action: Action) -> Result<(), Box<dyn std::error::Error>> {
    let connections = Connections::from_environment(env)?;
    let ledger = Ledger::new(&connections.database_url, 1, "polyglot-dead-letters")?;
    let broker = Broker::of(&connections, "polyglot-dead-letters").ok_or(QueueError::NoBroker)?;
    let mut failure = None;
    let seen = broker
        .dead_letters(async |letter| match decide(&ledger, action, letter).await {
            Ok((fate, words)) => {
                let export = letter.export_id.map_or_else(|| format!("{} bytes", letter.bytes), |id| id.to_string());
                println!("{export}: {}: {words}", letter.reason);
                fate
            }
            Err(error) => {
                failure = Some(error);
                LetterFate::Keep
            }
        })
        .await?;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    println!("{seen} dead letters in {}", broker.dead_letter_queue());
    Ok(())
}

async fn decide(
    ledger: &Ledger,
    action: Action,
    letter: &DeadLetter,
) -> Result<(LetterFate, &'static str), polyglot_export::ledger::LedgerError> {
    let Some(id) = letter.export_id else {
        return Ok(match action {
            Action::Discard => (LetterFate::Discard, "not a message of this service, removed"),
            Action::List | Action::Redrive => (LetterFate::Keep, "not a message of this service, kept"),
        });
    };
    let active = in_time(ledger.status(id)).await?.is_some_and(polyglot_export::status::Status::is_active);
    Ok(match (action, active) {
        (Action::Redrive, true) => (LetterFate::Redrive, "put back into the queue"),
        (Action::Redrive, false) => (LetterFate::Discard, "the export has ended or is unknown, removed"),
        (Action::List | Action::Discard, true) => (LetterFate::Keep, "the export is not finished"),
        (Action::List | Action::Discard, false) => (LetterFate::Keep, "the export has ended or is unknown"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_refused() {
        let of = |words: &[&str]| Action::of(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]), Some(Action::List));
        assert_eq!(of(&["redrive"]), Some(Action::Redrive));
        assert_eq!(of(&["discard"]), Some(Action::Discard));
        assert_eq!(of(&["redrive", "all"]), None);
        assert_eq!(of(&["list"]), None);
    }
}
