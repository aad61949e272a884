//! The steps of a schedule, and how they are drawn from a seed. A step names claims and exports by small numbers, which count
//! back from the newest and are taken modulo what there is, so a schedule means something without some of its steps too.

use polyglot_core::expected_size::ExpectedSize;
use polyglot_ledger::Turn;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// The lease of every claim.
pub(super) const LEASE_SECONDS: i64 = 60;
/// Longest time of an export from its first claim to its end, where a schedule has such a limit.
pub(super) const TIMEOUT_SECONDS: i64 = 3600;

/// A schedule: everything that a run depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Number of exports that may have a place.
    pub(super) places: u16,
    pub(super) has_timeout: bool,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Submit {
        tenant: u8,
        size: ExpectedSize,
    },
    /// A worker asks for the next piece of work, and prefers one kind.
    Claim {
        worker: u8,
        turn: Turn,
    },
    /// Two workers do so at the same time.
    ClaimTwice {
        turn: Turn,
    },
    /// The holder of a claim goes on with its work, whether or not the claim is still valid. `choice` says how.
    Work {
        claim: u8,
        choice: u8,
    },
    /// The holders of two claims ask for a place at the same time.
    TakePlaces {
        first: u8,
        second: u8,
    },
    /// A worker is gone with its claims. Their leases stay.
    Die {
        worker: u8,
    },
    Delete {
        export: u8,
    },
    /// A process says that it holds the snapshot of the newest attempt, or of the one before.
    Hold {
        export: u8,
        worker: u8,
        before: bool,
    },
    Release {
        export: u8,
        worker: u8,
    },
    Sweep,
    /// The sweeper removes what attempts have left in the store.
    CleanUp,
    /// The clock jumps.
    Clock {
        milliseconds: i64,
    },
}

/// The jumps of the clock, and how often each is drawn. They are a few milliseconds apart from multiples of half a lease, so
/// that the random part of the pause after a failure, a few seconds, never decides what a schedule does.
const JUMPS: [(i64, u32); 12] = [
    (1, 3),
    (LEASE_SECONDS * 500, 5),
    (LEASE_SECONDS * 1000, 3),
    (LEASE_SECONDS * 1000 + 1, 7),
    (LEASE_SECONDS * 1500, 4),
    (600_000, 2),
    (TIMEOUT_SECONDS * 500, 1),
    (TIMEOUT_SECONDS * 1000 + 1, 1),
    (-1, 1),
    (-LEASE_SECONDS * 500, 1),
    (-LEASE_SECONDS * 1000, 1),
    (-600_000, 1),
];

pub(super) const TENANTS: u8 = 3;
pub(super) const WORKERS: u8 = 3;
/// Values of [`Step::Work::choice`].
pub(super) const CHOICES: u8 = 16;
const STEPS: std::ops::RangeInclusive<usize> = 20..=50;

/// Draws the schedule of a seed.
pub(super) fn draw(seed: u64) -> Schedule {
    let mut random = StdRng::seed_from_u64(seed);
    let places = random.random_range(1..=2);
    let has_timeout = random.random_ratio(3, 4);
    let mut steps = vec![Step::Submit { tenant: 0, size: ExpectedSize::Medium }];
    let length = random.random_range(STEPS);
    while steps.len() < length {
        steps.push(draw_step(&mut random));
    }
    Schedule { places, has_timeout, steps }
}

fn draw_step(random: &mut StdRng) -> Step {
    match random.random_range(0..100) {
        0..9 => Step::Submit { tenant: random.random_range(0..TENANTS), size: draw_size(random) },
        9..33 => Step::Claim { worker: random.random_range(0..WORKERS), turn: Turn::nth(random.random_range(0..3)) },
        33..36 => Step::ClaimTwice { turn: Turn::nth(random.random_range(0..3)) },
        36..78 => Step::Work { claim: draw_claim(random), choice: random.random_range(0..CHOICES) },
        78..80 => Step::TakePlaces { first: 0, second: random.random_range(1..4) },
        80..82 => Step::Die { worker: random.random_range(0..WORKERS) },
        82..84 => Step::Delete { export: random.random_range(0..4) },
        84..86 => Step::Hold {
            export: random.random_range(0..4),
            worker: random.random_range(0..WORKERS),
            before: random.random_ratio(1, 3),
        },
        86 => Step::Release { export: random.random_range(0..4), worker: random.random_range(0..WORKERS) },
        87..90 => Step::Sweep,
        90 => Step::CleanUp,
        _ => {
            let (milliseconds, _) =
                JUMPS.choose_weighted(random, |(_, weight)| *weight).expect("the weights are positive");
            Step::Clock { milliseconds: *milliseconds }
        }
    }
}

fn draw_size(random: &mut StdRng) -> ExpectedSize {
    match random.random_range(0..4) {
        0 => ExpectedSize::Small,
        1 => ExpectedSize::Large,
        _ => ExpectedSize::Medium,
    }
}

/// Mostly the newest claims, whose work then gets somewhere, and often enough any other, of which most have lost their leases.
fn draw_claim(random: &mut StdRng) -> u8 {
    match random.random_range(0..10) {
        0..5 => 0,
        5..8 => random.random_range(0..4),
        _ => random.random_range(0..20),
    }
}
