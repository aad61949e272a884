//! Output at the terminal: lines, and one progress line that is redrawn in place.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Writes one line to standard output. Errors are ignored: a closed output is no reason to stop.
pub fn print_line(line: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush());
}

/// A line that changes: redrawn in place on a terminal, otherwise printed again every two seconds.
#[derive(Debug)]
pub struct ProgressLine {
    in_place: bool,
    last: Option<Instant>,
    drawn: bool,
}

impl ProgressLine {
    pub fn new() -> Self {
        Self { in_place: io::stdout().is_terminal(), last: None, drawn: false }
    }

    /// Shows `text`, unless the last one was shown a moment ago.
    pub fn show(&mut self, text: impl AsRef<str>) {
        let every = if self.in_place { Duration::from_millis(100) } else { Duration::from_secs(2) };
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        self.draw(text.as_ref());
    }

    /// Shows `text` in any case, and ends the line.
    pub fn finish(mut self, text: impl AsRef<str>) {
        self.draw(text.as_ref());
        self.end_line();
    }

    fn draw(&mut self, text: &str) {
        if !self.in_place {
            return print_line(text);
        }
        let mut out = io::stdout().lock();
        // Back to the first column, clear to the end of the line.
        let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
        self.drawn = true;
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.drawn) {
            print_line("");
        }
    }
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.end_line();
    }
}

/// Formats `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats bytes in the largest decimal unit of which there is at least one.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a duration as seconds with one decimal.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_readers() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(2_400_000_000), "2.4 GB");
    }
}
