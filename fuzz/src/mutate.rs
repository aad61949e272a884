//! Small changes to valid bytes, of which most get past the first check of a parser.

use rand::Rng;
use rand::rngs::StdRng;

/// Changes, removes or doubles a few bytes, or cuts the rest off. A byte is changed by one bit or to one of `special`.
pub fn mutate(data: &mut Vec<u8>, special: &[u8], rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..4) {
        if data.is_empty() {
            return;
        }
        let at = rng.random_range(0..data.len());
        match rng.random_range(0..5) {
            0 => data[at] ^= 1 << rng.random_range(0..8),
            1 => data[at] = special[rng.random_range(0..special.len())],
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
