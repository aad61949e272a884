//! Makes a schedule that breaks an invariant as short as possible.

use polyglot_core::expected_size::ExpectedSize;

use super::step::{Schedule, Step};
use super::{Broken, Database};

/// Runs after which a schedule is short enough.
const RUNS: usize = 1000;

struct Shrinker<'a> {
    database: &'a Database,
    best: Schedule,
    broken: Broken,
    runs: usize,
}

/// Leaves out steps and lowers their numbers, while some invariant still breaks.
pub(super) async fn shrink(database: &Database, schedule: Schedule, broken: Broken) -> (Schedule, Broken) {
    let mut shrinker = Shrinker { database, best: schedule, broken, runs: 0 };
    shrinker.best.steps.truncate(shrinker.broken.steps);
    let mut length = shrinker.best.steps.len() / 2;
    while length > 1 {
        shrinker.leave_out(length).await;
        length /= 2;
    }
    loop {
        let before = shrinker.best.clone();
        shrinker.lower_numbers().await;
        shrinker.leave_out(1).await;
        if shrinker.best == before || shrinker.runs >= RUNS {
            return (shrinker.best, shrinker.broken);
        }
    }
}

impl Shrinker<'_> {
    /// Takes the schedule instead of the best one, if it breaks an invariant too.
    async fn try_steps(&mut self, steps: Vec<Step>) -> bool {
        self.runs += 1;
        if self.runs > RUNS {
            return false;
        }
        let schedule = Schedule { steps, ..self.best.clone() };
        let Err(broken) = Box::pin(self.database.run(&schedule)).await else { return false };
        self.best = schedule;
        self.best.steps.truncate(broken.steps);
        self.broken = broken;
        true
    }

    /// Leaves out so many steps at each place, from the end, because the steps before are what the others rely on.
    async fn leave_out(&mut self, length: usize) {
        let mut at = self.best.steps.len();
        while at > 0 {
            at = at.saturating_sub(length).min(self.best.steps.len());
            let mut steps = self.best.steps.clone();
            steps.drain(at..(at + length).min(steps.len()));
            if steps.len() == self.best.steps.len() || self.try_steps(steps.clone()).await || length > 1 {
                continue;
            }
            // A claim that is left out changes the numbers by which later steps name older claims.
            for lowered in [lower_claims(&steps, at, 1), lower_claims(&steps, at, 2), lower_last_claim(&steps)] {
                if lowered != steps && self.try_steps(lowered).await {
                    break;
                }
            }
        }
    }

    /// Replaces numbers by the lowest with which an invariant still breaks, and two claims at the same time by one.
    async fn lower_numbers(&mut self) {
        let mut at = 0;
        while at < self.best.steps.len() {
            for simpler in simpler_steps(self.best.steps[at]) {
                let mut steps = self.best.steps.clone();
                steps[at] = simpler;
                if self.try_steps(steps).await {
                    break;
                }
            }
            at += 1;
        }
    }
}

fn simpler_steps(step: Step) -> Vec<Step> {
    match step {
        Step::Submit { tenant, size } => {
            let plain = (size != ExpectedSize::Medium).then_some(Step::Submit { tenant, size: ExpectedSize::Medium });
            (0..tenant).map(|tenant| Step::Submit { tenant, size }).chain(plain).collect()
        }
        Step::Claim { worker, turn } => (0..worker).map(|worker| Step::Claim { worker, turn }).collect(),
        Step::ClaimTwice { turn } => vec![Step::Claim { worker: 0, turn }],
        Step::Work { claim, choice } => (0..claim.min(8)).map(|claim| Step::Work { claim, choice }).collect(),
        Step::Delete { export } => (0..export).map(|export| Step::Delete { export }).collect(),
        _ => Vec::new(),
    }
}

fn lower_claims(steps: &[Step], from: usize, by: u8) -> Vec<Step> {
    let lower = |(at, step): (usize, &Step)| match *step {
        Step::Work { claim, choice } if at >= from => Step::Work { claim: claim.saturating_sub(by), choice },
        step => step,
    };
    steps.iter().enumerate().map(lower).collect()
}

fn lower_last_claim(steps: &[Step]) -> Vec<Step> {
    lower_claims(steps, steps.len().saturating_sub(1), 1)
}

/// The message of the test's failure.
pub(super) fn describe(seed: u64, before: u64, schedule: &Schedule, broken: &Broken) -> String {
    let Schedule { places, has_timeout, steps } = schedule;
    let lines: Vec<String> = steps.iter().map(|step| format!("    {step:?}")).collect();
    format!(
        "SEED={seed} breaks an invariant, after {before} schedules that broke none: {}\n\
         shortest schedule, {} steps, with {places} places, with a timeout: {has_timeout}:\n{}\n\
         what they did:\n    {}",
        broken.invariant,
        steps.len(),
        lines.join("\n"),
        broken.trace.join("\n    "),
    )
}
