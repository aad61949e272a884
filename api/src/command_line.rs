//! The arguments of `polyglot-api`. Without any it serves; its settings are environment variables.

use clap::{Parser, Subcommand};

use crate::keys::KeysCommand;

/// The api of the Polyglot data export service. Without a command it serves until a signal. Its settings are environment
/// variables, as docs/reference/configuration.md lists them.
#[derive(Debug, Parser)]
#[command(name = "polyglot-api", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connect to everything that the variables name, and say what is right, missing or too much.
    Check,
    /// Ask the api of this machine whether it answers, as the health check of a container.
    Health,
    /// API keys, in the ledger of DATABASE_URL.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Bring the tables of the ledger, the database of DATABASE_URL, up to this version. Processes with MIGRATE=off wait for it.
    Migrate,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["polyglot-api"]).unwrap().command.is_none());
        assert!(matches!(
            Arguments::try_parse_from(["polyglot-api", "health"]).unwrap().command,
            Some(Command::Health)
        ));
        let create = ["polyglot-api", "keys", "create", "--name", "a", "--scopes", "exports:read,metrics"];
        assert!(Arguments::try_parse_from(create).is_ok());
        for bad in [
            &["polyglot-api", "serve"][..],
            &["polyglot-api", "keys"],
            &["polyglot-api", "keys", "create"],
            &["polyglot-api", "keys", "create", "--name", "a", "--tenant", "../b"],
            &["polyglot-api", "keys", "create", "--name", "a", "--scopes", "everything"],
            &["polyglot-api", "keys", "create", "--name", "a", "--expires-in-days", "0"],
            &["polyglot-api", "keys", "revoke", "7"],
        ] {
            assert!(Arguments::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
