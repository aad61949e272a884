//! `DATASETS` files of which bytes are changed, lost, doubled or cut off: reading gives datasets or an error, never a panic, and no
//! misspelt part of a policy is left out. The seed is fixed, so that a failure can be repeated.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const ROUNDS: usize = 30_000;

const FILE: &str = r#"
[[dataset]]
name = "people"
relation = "shop.people"
columns = ["id", "email"]
order_by = ["id", { column = "id", direction = "desc" }]
tenants = ["acme"]
row_filter = [{ column = "tenant", op = "=", claim = "tenant" }, { column = "n", op = "in", value = [1, "a", true] }]
mask = { email = "hash" }
role = "reporting"
max_rows = 1000
max_bytes = 1000000

[[dataset]]
relation = '"a.b".*'
"#;

/// Bytes that mean something in TOML, and some that never do.
const SPECIAL: &[u8] = b"\0[]{}\"'=,.*#\n-9\x7f\xff";

fn mutate(data: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        if data.is_empty() {
            return;
        }
        let at = rng.random_range(0..data.len());
        match rng.random_range(0..5) {
            0 => data[at] ^= 1 << rng.random_range(0..8),
            1 => data[at] = SPECIAL[rng.random_range(0..SPECIAL.len())],
            2 => data.truncate(at),
            3 => {
                data.remove(at);
            }
            _ => {
                let end = (at + rng.random_range(1..9)).min(data.len());
                data.splice(at..at, data[at..end].to_vec());
            }
        }
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let mut rng = StdRng::seed_from_u64(20_260_719);
    let mut read = 0;
    for _ in 0..ROUNDS {
        let mut data = FILE.as_bytes().to_vec();
        mutate(&mut data, &mut rng);
        read += usize::from(Datasets::parse(&String::from_utf8_lossy(&data)).is_ok());
    }
    assert!(read > ROUNDS / 100 && read < ROUNDS, "{read} of {ROUNDS} were read");
}

#[test]
fn a_policy_is_never_less_than_what_the_file_says() {
    let whole = Datasets::parse(FILE).unwrap();
    let policy = &whole.named("people").unwrap().policy;
    for field in
        ["tenants", "row_filter", "mask", "role", "max_rows", "max_bytes", "claim", "op = ", "column = \"tenant\""]
    {
        for at in 0..field.find(' ').unwrap_or(field.len()) {
            let mut misspelt = field.to_owned();
            misspelt.replace_range(at..=at, "x");
            let text = FILE.replacen(field, &misspelt, 1);
            // What happens to be spelt as before says the same as before.
            if let Ok(read) = Datasets::parse(&text) {
                assert_eq!(read.named("people").unwrap().policy, *policy, "{misspelt}");
            }
        }
    }
}
