//! The lines of a check.

use std::fmt;

/// What a line says of its part of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    /// To be known, and no reason not to start.
    Note,
    Missing,
    TooMuch,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Right => "ok",
            Self::Note => "note",
            Self::Missing => "MISSING",
            Self::TooMuch => "TOO MUCH",
        })
    }
}

/// Prints each finding as it comes, and counts those with which the service would not work.
#[derive(Debug, Default)]
pub(super) struct Findings {
    part: &'static str,
    wrong: usize,
}

impl Findings {
    /// What follows is about this part.
    pub(super) fn begin(&mut self, part: &'static str) {
        self.part = part;
    }

    pub(super) fn right(&mut self, text: impl fmt::Display) {
        self.say(Verdict::Right, text);
    }

    pub(super) fn note(&mut self, text: impl fmt::Display) {
        self.say(Verdict::Note, text);
    }

    pub(super) fn missing(&mut self, text: impl fmt::Display) {
        self.wrong += 1;
        self.say(Verdict::Missing, text);
    }

    pub(super) fn too_much(&mut self, text: impl fmt::Display) {
        self.wrong += 1;
        self.say(Verdict::TooMuch, text);
    }

    fn say(&self, verdict: Verdict, text: impl fmt::Display) {
        println!("{}", line(verdict, self.part, text));
    }

    /// Prints the sum, and returns whether everything is right.
    pub(super) fn finish(self) -> bool {
        match self.wrong {
            0 => println!("Everything that the service needs is there."),
            1 => println!("1 line above says what to mend."),
            wrong => println!("{wrong} lines above say what to mend."),
        }
        self.wrong == 0
    }
}

fn line(verdict: Verdict, part: &str, text: impl fmt::Display) -> String {
    format!("{verdict:<9} {part:<13} {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_columns() {
        assert_eq!(line(Verdict::Right, "ledger", "fine"), "ok        ledger        fine");
        assert_eq!(line(Verdict::TooMuch, "object store", "x"), "TOO MUCH  object store  x");
    }

    #[test]
    fn a_note_is_no_reason_not_to_start() {
        let mut findings = Findings::default();
        findings.begin("source");
        findings.right("a");
        findings.note("b");
        assert_eq!(findings.wrong, 0);
        findings.missing("c");
        findings.too_much("d");
        assert_eq!(findings.wrong, 2);
    }
}
