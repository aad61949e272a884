//! The `devstack` program: its messages and its exit code for bad settings and bad command lines.

use std::process::{Command, Output};

fn devstack(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devstack")).args(args).envs(env.iter().copied()).output().unwrap()
}

#[test]
fn a_bad_value_stops_it_at_once_and_is_named() {
    for (name, value) in
        [("PORT", "0"), ("LISTEN", "eth0"), ("SEED_ROWS", "many"), ("WORKERS", "0"), ("AMQP_URL", "nonsense")]
    {
        let output = devstack(&["run"], &[(name, value)]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {message}");
        assert!(message.starts_with(&format!("devstack: {name}: ")), "{message}");
    }
}

#[test]
fn a_bad_command_line_ends_with_2_and_shows_the_usage() {
    let commands = ["devstack run", "devstack with-servers -- <CMD>", "devstack clean"];
    for (args, usage) in [
        (&[][..], &commands[..]),
        (&["jump"], &commands),
        (&["run", "fast"], &["devstack run"]),
        (&["with-servers"], &["devstack with-servers -- <CMD>"]),
        (&["with-servers", "--"], &["devstack with-servers -- <CMD>"]),
        (&["with-servers", "true"], &["devstack with-servers"]),
    ] {
        let output = devstack(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(usage.iter().all(|usage| message.contains(usage)), "{args:?}: {message}");
    }
}

#[test]
fn help_describes_the_commands() {
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let output = devstack(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        for part in ["devstack run", "devstack with-servers -- <CMD>", "devstack clean", "PORT (8080)", "throw-away"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
