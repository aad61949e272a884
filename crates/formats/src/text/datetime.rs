//! Dates and times as ISO 8601 text, the way the text formats share. Years run from 4713 BC to 294276 AD and
//! are written as PostgreSQL does: at least four digits, and ` BC` behind the whole value.

/// Days from 2000-01-01 to 1970-01-01.
pub(crate) const UNIX_EPOCH_DAYS: i32 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

/// Writes a date given in days since 2000-01-01.
pub(crate) fn write_date(days: i32, out: &mut Vec<u8>) {
    if write_infinity(days == i32::MIN, days == i32::MAX, out) {
        return;
    }
    let (year, month, day) = civil(i64::from(days));
    write_ymd(year, month, day, out);
    write_era(year, out);
}

/// Writes a time of day in microseconds, with only as many decimals as it needs.
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / 1_000_000;
    two(seconds / 3600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    let mut fraction = micros % 1_000_000;
    if fraction > 0 {
        out.push(b'.');
        let mut digits = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        padded(fraction, digits, out);
    }
}

/// Writes a timestamp given in microseconds since 2000-01-01; `zone` is what follows the time (`Z` or nothing).
pub(crate) fn write_timestamp(micros: i64, zone: &[u8], out: &mut Vec<u8>) {
    if write_infinity(micros == i64::MIN, micros == i64::MAX, out) {
        return;
    }
    let (year, month, day) = civil(micros.div_euclid(DAY_MICROS));
    write_ymd(year, month, day, out);
    out.push(b'T');
    write_time(micros.rem_euclid(DAY_MICROS), out);
    out.extend_from_slice(zone);
    write_era(year, out);
}

/// Writes a timestamp given in microseconds since 2000-01-01 as `2026-01-02 03:04:05`, without its fraction of a second. Returns
/// whether it is one, and whether a fraction was cut off.
pub(crate) fn write_whole_seconds(micros: i64, out: &mut Vec<u8>) -> WholeSeconds {
    if write_infinity(micros == i64::MIN, micros == i64::MAX, out) {
        return WholeSeconds { is_finite: false, is_cut: false };
    }
    let (year, month, day) = civil(micros.div_euclid(DAY_MICROS));
    write_ymd(year, month, day, out);
    out.push(b' ');
    let time = micros.rem_euclid(DAY_MICROS);
    let fraction = time % 1_000_000;
    write_time(time - fraction, out);
    write_era(year, out);
    WholeSeconds { is_finite: true, is_cut: fraction > 0 }
}

/// What was written by [`write_whole_seconds`].
pub(crate) struct WholeSeconds {
    pub is_finite: bool,
    pub is_cut: bool,
}

fn write_infinity(negative: bool, positive: bool, out: &mut Vec<u8>) -> bool {
    match (negative, positive) {
        (true, _) => out.extend_from_slice(b"-infinity"),
        (_, true) => out.extend_from_slice(b"infinity"),
        _ => return false,
    }
    true
}

/// The proleptic Gregorian date of a day counted from 2000-01-01, with year 0 = 1 BC. Hinnant's
/// `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + i64::from(UNIX_EPOCH_DAYS) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn write_ymd(year: i64, month: i64, day: i64, out: &mut Vec<u8>) {
    let shown = if year > 0 { year } else { 1 - year };
    if shown > 9999 {
        out.extend_from_slice(itoa::Buffer::new().format(shown).as_bytes());
    } else {
        padded(shown, 4, out);
    }
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(day, out);
}

fn write_era(year: i64, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

fn digit(value: i64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

fn two(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

/// Writes the last `width` (at most 6) digits of a number that is not negative.
fn padded(mut value: i64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 6];
    for place in digits[..width].iter_mut().rev() {
        *place = digit(value);
        value /= 10;
    }
    out.extend_from_slice(&digits[..width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps() {
        for (micros, expected) in [
            (0, "2000-01-01T00:00:00Z"),
            (1, "2000-01-01T00:00:00.000001Z"),
            (-1, "1999-12-31T23:59:59.999999Z"),
            (820_544_645_120_000, "2026-01-01T01:04:05.12Z"),
            (i64::MAX, "infinity"),
            (i64::MIN, "-infinity"),
            // The first and the last that PostgreSQL knows.
            (-211_813_488_000_000_000, "4714-11-24T00:00:00Z BC"),
            (9_223_371_331_199_999_999, "294276-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(text(|out| write_timestamp(micros, b"Z", out)), expected);
        }
    }

    #[test]
    fn whole_seconds() {
        for (micros, expected, is_cut) in [
            (0, "2000-01-01 00:00:00", false),
            (820_544_645_120_000, "2026-01-01 01:04:05", true),
            // Cut off, not rounded, before the epoch as well.
            (-1, "1999-12-31 23:59:59", true),
            (i64::MAX, "infinity", false),
            (-211_813_488_000_000_000, "4714-11-24 00:00:00 BC", false),
        ] {
            let mut out = Vec::new();
            let written = write_whole_seconds(micros, &mut out);
            assert_eq!((String::from_utf8(out).unwrap().as_str(), written.is_cut), (expected, is_cut));
            assert_eq!(written.is_finite, micros != i64::MAX);
        }
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(text(|out| write_date(59, out)), "2000-02-29");
        assert_eq!(text(|out| write_date(60, out)), "2000-03-01");
        assert_eq!(text(|out| write_date(-730_120, out)), "0001-12-31 BC");
        assert_eq!(text(|out| write_date(i32::MAX, out)), "infinity");
        assert_eq!(text(|out| write_time(86_400_000_000, out)), "24:00:00");
        assert_eq!(text(|out| write_time(3_723_000_400, out)), "01:02:03.0004");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(-2_451_600);
        for day in -2_451_599..2_000_000 {
            let next = civil(day);
            let same_month = next.0 == last.0 && next.1 == last.1 && next.2 == last.2 + 1;
            let next_month = next.2 == 1 && last.2 >= 28 && (next.1 == last.1 + 1 || (next.1 == 1 && last.1 == 12));
            assert!(same_month || next_month, "{last:?} then {next:?}");
            last = next;
        }
    }
}
