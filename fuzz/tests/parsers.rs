//! Mutation tests of the parsers of the api: valid input of each target, of which bytes are changed, lost, doubled or cut off. The
//! seed is fixed, so that a failure can be repeated.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use polyglot_fuzz::mutate::mutate;
use polyglot_fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const ROUNDS: usize = 40_000;

/// Bytes that mean something in JSON, TOML, SQL or a token, and some that never do.
const SPECIAL: &[u8] = b"\0\\'\"{}[]$;,:.-=*\x7f\xff";

const CLAIMS: [&str; 2] = [
    r#"{"iss": "i", "aud": ["a", "b"], "exp": 9999, "nbf": 0, "sub": "ann", "tenant": "acme", "scope": "exports:read admin"}"#,
    r#"{"iss": "i", "aud": "a", "exp": 9999.5, "sub": "ann", "tenant": "acme", "scope": ["exports:read"]}"#,
];

/// The valid inputs of a target, which `make fuzz` begins with too.
fn seeds(name: &str) -> Vec<String> {
    let folder = format!("{}/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Runs a target over mutants of `valid`. `finish` makes the input of what was mutated. Changes have to get past the first checks:
/// some of the mutants are accepted, and not all.
fn fuzz(name: &str, valid: &[String], rounds: usize, finish: impl Fn(Vec<u8>) -> Vec<u8>) {
    let run = target(name);
    for text in valid {
        assert!(run(&finish(text.as_bytes().to_vec())), "{name} refuses {text}");
    }
    let mut rng = StdRng::seed_from_u64(20_261_201);
    let mut accepted = 0;
    for _ in 0..rounds {
        let mut data = valid[rng.random_range(0..valid.len())].as_bytes().to_vec();
        mutate(&mut data, SPECIAL, &mut rng);
        accepted += usize::from(run(&finish(data)));
    }
    assert!(accepted > rounds / 100 && accepted < rounds, "{name}: {accepted} of {rounds} mutants were accepted");
}

#[test]
fn submissions_are_read_back_as_stored_and_reach_sql_in_quotes() {
    fuzz("submission", &seeds("submission"), ROUNDS, |data| data);
}

#[test]
fn a_cursor_has_one_text() {
    let cursor = target("cursor");
    let mut rng = StdRng::seed_from_u64(3);
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let mut data = vec![1];
        data.extend(rng.random::<[u8; 16]>());
        let mut text = URL_SAFE_NO_PAD.encode(data).into_bytes();
        assert!(cursor(&text));
        mutate(&mut text, SPECIAL, &mut rng);
        accepted += usize::from(cursor(&text));
    }
    assert!(accepted > ROUNDS / 100 && accepted < ROUNDS, "{accepted}");
}

#[test]
fn no_token_is_accepted_that_nobody_signed() {
    // The target accepts the claims; it panics where a signature of no key is accepted.
    for algorithm in ["ES256", "EdDSA", "none", "HS256", "RS256"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg": "{algorithm}", "kid": "a"}}"#));
        for signature in [&[][..], &[0; 64], &[1; 256]] {
            let signature = URL_SAFE_NO_PAD.encode(signature);
            let finish = |data| format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(data)).into_bytes();
            fuzz("token", &CLAIMS.map(str::to_owned), ROUNDS / 15, finish);
        }
    }
}

#[test]
fn every_target_accepts_its_seeds() {
    for (name, run) in TARGETS.iter().filter(|(name, _)| *name != "decode") {
        for seed in seeds(name) {
            assert!(run(seed.as_bytes()), "{name} refuses {seed}");
        }
    }
}

#[test]
fn changed_key_sets_are_read_or_refused() {
    fuzz("key-set", &seeds("key-set"), ROUNDS, |data| data);
}

#[test]
fn a_changed_datasets_file_is_read_or_refused() {
    fuzz("datasets", &seeds("datasets"), ROUNDS, |data| data);
}
