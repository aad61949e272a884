//! The `devstack` program itself: what it says, and its exit code, when it cannot do what it is asked.

use std::process::{Command, Output};

fn devstack(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devstack")).args(args).envs(env.iter().copied()).output().unwrap()
}

#[test]
fn a_bad_value_stops_it_at_once_and_is_named() {
    for (name, value) in [("PORT", "0"), ("SEED_ROWS", "many"), ("WORKERS", "0"), ("AMQP_URL", "nonsense")] {
        let output = devstack(&["run"], &[(name, value)]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {words}");
        assert!(words.starts_with(&format!("devstack: {name}: ")), "{words}");
    }
}

#[test]
fn an_unknown_command_shows_the_known_ones() {
    for args in [&[][..], &["jump"], &["with-servers", "--"], &["run", "fast"]] {
        let output = devstack(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("devstack run"));
    }
}
