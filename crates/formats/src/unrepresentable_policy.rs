//! Values that a format cannot hold: the one decision between failing and replacing, and the count of what was
//! replaced. Nothing is written as something else without passing here.

use polyglot_core::format_options::OnUnrepresentable;

/// How often, in one column, something was written in place of what could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Its place among the columns of the file.
    pub column: usize,
    pub problem: &'static str,
    pub with: &'static str,
    pub count: i64,
}

#[derive(Debug)]
pub(crate) struct UnrepresentablePolicy {
    policy: OnUnrepresentable,
    replacements: Vec<Replacement>,
}

/// The policy is to fail.
pub(super) struct Refused;

impl UnrepresentablePolicy {
    pub(super) fn new(policy: OnUnrepresentable) -> Self {
        Self { policy, replacements: Vec::new() }
    }

    pub(super) fn replaces(&self) -> bool {
        self.policy == OnUnrepresentable::Replace
    }

    /// Counts a value that is replaced, if the request allows that.
    pub(super) fn replace(&mut self, column: usize, problem: &'static str, with: &'static str) -> Result<(), Refused> {
        if !self.replaces() {
            return Err(Refused);
        }
        self.count(column, problem, with);
        Ok(())
    }

    /// Counts a change that the request itself asked for.
    pub(super) fn count(&mut self, column: usize, problem: &'static str, with: &'static str) {
        let same = |it: &&mut Replacement| (it.column, it.problem, it.with) == (column, problem, with);
        match self.replacements.iter_mut().find(same) {
            Some(replacement) => replacement.count += 1,
            None => self.replacements.push(Replacement { column, problem, with, count: 1 }),
        }
    }

    pub(super) fn replacements(&self) -> &[Replacement] {
        &self.replacements
    }
}
