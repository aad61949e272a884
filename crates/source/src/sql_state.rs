//! What an SQLSTATE means, in words for clients. The server's own message is for the operator: it may quote a value, or name what
//! a client may not know of.

/// What failed, as a noun phrase; the code itself where nothing is known of it.
///
/// The names are those of the appendix "PostgreSQL Error Codes", said so that a reader who does not know them understands.
#[must_use]
pub fn meaning(code: &str) -> &'static str {
    CODES.iter().chain(CLASSES).find(|(known, _)| code.starts_with(known)).map_or(UNKNOWN, |(_, meaning)| meaning)
}

const UNKNOWN: &str = "an error of the server";

/// Codes that say more than their class.
const CODES: &[(&str, &str)] = &[
    ("08001", "a server that the dataset reads from cannot be reached"),
    ("08004", "a server that the dataset reads from refused the connection"),
    ("08006", "the connection to a server that the dataset reads from was lost"),
    ("0A000", "something that the server does not support"),
    ("21000", "a subquery of the dataset has more than one row"),
    ("22001", "a text that is too long for its type"),
    ("22003", "a number that is out of its type's range"),
    ("22004", "a NULL where none is allowed"),
    ("22007", "a text that is not a date or a time"),
    ("22008", "a date or a time that is out of range"),
    ("22012", "a division by zero"),
    ("22021", "bytes that are not text in the encoding of the database"),
    ("22P02", "a text that is not a value of its type"),
    ("22P05", "a character that has no equivalent in another encoding"),
    ("25006", "the dataset writes when it is read, which no export does"),
    ("40P01", "a deadlock with another session"),
    ("42501", "a permission is missing on something that the dataset reads"),
    ("42703", "a column that the dataset reads is not there"),
    ("42883", "a function or an operator that the dataset uses is not there"),
    ("42P01", "a relation that the dataset reads is not there"),
    ("42P17", "the definition of something that the dataset reads is not valid"),
    ("42P19", "a recursion that the server does not allow"),
    ("53100", "the server's disk is full"),
    ("53200", "the server is out of memory"),
    ("53300", "the server has no connection free"),
    ("54001", "a statement that is too complex"),
    ("55000", "a relation that is not ready to be read, as a materialized view that was never refreshed"),
    ("55P03", "a lock on the relation that was not to be had in time"),
    ("57014", "the statement was cancelled or reached a time limit of the server"),
    ("57P01", "the server ended the session"),
    ("57P02", "the server crashed"),
    ("57P03", "the server takes no connections at the moment"),
    ("58030", "a file of the server that cannot be read or written"),
    ("HV00N", "a server that the dataset reads from cannot be reached"),
    ("P0001", "a function of the dataset raised an error"),
    ("P0002", "a function of the dataset found no row"),
    ("P0003", "a function of the dataset found too many rows"),
    ("XX001", "data of the relation that is damaged"),
    ("XX002", "an index of the relation that is damaged"),
];

/// The first two characters of a code.
const CLASSES: &[(&str, &str)] = &[
    ("08", "a connection that the dataset or the server depends on is not usable"),
    ("09", "a trigger failed"),
    ("21", "a subquery of the dataset has more rows than it may"),
    ("22", "a value that cannot be computed or read"),
    ("23", "a constraint that is violated"),
    ("24", "a cursor that is not in the state that it has to be in"),
    ("25", "a transaction that is not in the state that it has to be in"),
    ("28", "the server did not accept the service's user"),
    ("2B", "objects that depend on another one"),
    ("2F", "a function of the dataset failed"),
    ("38", "a function of the dataset failed"),
    ("39", "a function of the dataset was called in a way that it does not allow"),
    ("3D", "a database that is not there"),
    ("3F", "a schema that is not there"),
    ("40", "a conflict with other transactions"),
    ("42", "a statement that is not valid, or not permitted, for what is in the database now"),
    ("53", "the server is out of a resource"),
    ("54", "a limit of the server"),
    ("55", "a relation that is not in the state that it has to be in"),
    ("57", "somebody intervened on the server"),
    ("58", "the system under the server failed"),
    ("F0", "the server's configuration is not valid"),
    ("HV", "the foreign server of a foreign table failed"),
    ("P0", "a function of the dataset raised an error"),
    ("XX", "an internal error of the server, or damaged data"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_before_its_class() {
        for (code, expected) in [
            ("22012", "a division by zero"),
            ("22099", "a value that cannot be computed or read"),
            ("HV00N", "a server that the dataset reads from cannot be reached"),
            ("HV004", "the foreign server of a foreign table failed"),
            ("08P01", "a connection that the dataset or the server depends on is not usable"),
            ("ZZ999", UNKNOWN),
            ("", UNKNOWN),
        ] {
            assert_eq!(meaning(code), expected, "{code}");
        }
    }

    #[test]
    fn every_code_is_there_once() {
        let mut all: Vec<_> = CODES.iter().chain(CLASSES).map(|(code, _)| *code).collect();
        assert!(CODES.iter().all(|(code, _)| code.len() == 5) && CLASSES.iter().all(|(class, _)| class.len() == 2));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
