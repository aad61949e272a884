//! Floating-point numbers as PostgreSQL prints them: the shortest digits that read back as the same value
//! (`extra_float_digits = 1`), laid out as `%g` does. The digits come from `ryu`; the layout is ours, because
//! PostgreSQL's changes to exponents elsewhere (float8 from 1e15, float4 from 1e6, both below 1e-4).
//!
//! One difference is left between the two: digits that lie exactly halfway to the next value. They read back by the
//! rule of rounding to even, which `ryu` relies on and PostgreSQL (`acceptBounds` in its d2s.c) does not.

/// Writes a double; NaN and the infinities as words.
pub(crate) fn write_f64(value: f64, out: &mut Vec<u8>) {
    if !value.is_finite() {
        return out.extend_from_slice(word(value.is_nan(), value > 0.0));
    }
    let bits = value.to_bits();
    let binary = Binary::new(bits & ((1 << 52) - 1), (bits >> 52) & 0x7ff, 52, 1075);
    let precise = |digits: usize| format!("{value:.digits$e}");
    // 17 digits are always enough.
    write_finite(ryu::Buffer::new().format_finite(value), value, &binary, (precise, 17), 15, out);
}

/// Writes a single-precision number the same way.
pub(crate) fn write_f32(value: f32, out: &mut Vec<u8>) {
    if !value.is_finite() {
        return out.extend_from_slice(word(value.is_nan(), value > 0.0));
    }
    let bits = u64::from(value.to_bits());
    let binary = Binary::new(bits & ((1 << 23) - 1), (bits >> 23) & 0xff, 23, 150);
    let precise = |digits: usize| format!("{value:.digits$e}");
    write_finite(ryu::Buffer::new().format_finite(value), value, &binary, (precise, 9), 6, out);
}

/// `precise` writes the value with so many digits behind the first, and how many digits are enough.
fn write_finite<T: std::str::FromStr + PartialEq + Copy>(
    shortest: &str,
    value: T,
    binary: &Binary,
    precise: (impl Fn(usize) -> String, usize),
    precision: i32,
    out: &mut Vec<u8>,
) {
    if !binary.is_halfway(shortest) {
        return lay_out(shortest, precision, out);
    }
    let inside = |text: &String| text.parse().ok().is_some_and(|read: T| read == value) && !binary.is_halfway(text);
    let longer = (0..precise.1).map(precise.0).find(inside);
    lay_out(longer.as_deref().unwrap_or(shortest), precision, out);
}

/// The size of a finite value: `mantissa` × 2^`exponent`.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// Whether the next smaller value is half as far away as the next larger one.
    lowest_of_its_exponent: bool,
}

impl Binary {
    fn new(fraction: u64, biased: u64, fraction_bits: u32, bias: i32) -> Self {
        let exponent = i32::try_from(biased).unwrap_or(0).max(1) - bias;
        let implicit = u64::from(biased > 0) << fraction_bits;
        Self { mantissa: fraction | implicit, exponent, lowest_of_its_exponent: fraction == 0 && biased > 1 }
    }

    /// Whether a decimal number (`-1.25e-7`, `300.0`) lies exactly between the value and one of its neighbours.
    fn is_halfway(&self, text: &str) -> bool {
        // With an odd mantissa, rounding to even would not come back here.
        if self.mantissa % 2 == 1 || self.mantissa == 0 {
            return false;
        }
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let digits = mantissa.bytes().filter(u8::is_ascii_digit);
        let decimal = digits.fold(0_u128, |all, digit| all * 10 + u128::from(digit - b'0'));
        let Ok(tens) = i32::try_from(fraction).map(|fraction| exponent.parse::<i32>().unwrap_or(0) - fraction) else {
            return false;
        };
        let below = if self.lowest_of_its_exponent {
            (4 * u128::from(self.mantissa) - 1, self.exponent - 2)
        } else {
            (2 * u128::from(self.mantissa) - 1, self.exponent - 1)
        };
        let above = (2 * u128::from(self.mantissa) + 1, self.exponent - 1);
        [below, above].into_iter().any(|(bound, twos)| {
            // decimal × 2^tens × 5^tens = bound × 2^twos, where bound is odd: the powers of two are compared first,
            // which is nearly always the end of it.
            let odd = decimal >> decimal.trailing_zeros().min(127);
            let equal_twos = i64::from(decimal.trailing_zeros()) + i64::from(tens) == i64::from(twos);
            let fives = || 5_u128.checked_pow(tens.unsigned_abs());
            equal_twos
                && if tens >= 0 {
                    fives().and_then(|fives| odd.checked_mul(fives)) == Some(bound)
                } else {
                    fives().and_then(|fives| bound.checked_mul(fives)) == Some(odd)
                }
        })
    }
}

fn word(nan: bool, positive: bool) -> &'static [u8] {
    match (nan, positive) {
        (true, _) => b"NaN",
        (_, true) => b"Infinity",
        _ => b"-Infinity",
    }
}

/// Takes ryu's text (`-1.25e-7`, `300.0`, `1e16`) apart and writes it with exponents where `%.{precision}g` has them.
fn lay_out(shortest: &str, precision: i32, out: &mut Vec<u8>) {
    let unsigned = shortest.strip_prefix('-').unwrap_or(shortest);
    if unsigned.len() < shortest.len() {
        out.push(b'-');
    }
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // 24 bytes hold the 17 digits that ryu writes at most and the zeros it pads a whole number with.
    let mut digits = [0_u8; 48];
    let mut count = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        digits[count] = byte;
        count += 1;
    }
    let leading = digits[..count].iter().take_while(|digit| **digit == b'0').count();
    let trailing = digits[leading..count].iter().rev().take_while(|digit| **digit == b'0').count();
    let significant = &digits[leading..count - trailing];
    if significant.is_empty() {
        out.push(b'0');
        return;
    }
    let offset = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    // The exponent of the first significant digit.
    let exponent = exponent.parse::<i32>().unwrap_or(0) + offset(whole.len()) - 1 - offset(leading);
    if !(-4..precision).contains(&exponent) {
        out.push(significant[0]);
        if significant.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&significant[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let size = exponent.unsigned_abs();
        if size < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', usize::try_from(-1 - exponent).unwrap_or(0)));
        out.extend_from_slice(significant);
    } else {
        let point = usize::try_from(exponent).unwrap_or(0) + 1;
        if significant.len() <= point {
            out.extend_from_slice(significant);
            out.extend(std::iter::repeat_n(b'0', point - significant.len()));
        } else {
            out.extend_from_slice(&significant[..point]);
            out.push(b'.');
            out.extend_from_slice(&significant[point..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values are PostgreSQL 15's own.
    #[test]
    fn doubles_as_postgres_prints_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (f64::MAX, "1.7976931348623157e+308"),
            // Halfway digits: 1e23 would be shorter.
            (1e23, "9.999999999999999e+22"),
            (-1e23, "-9.999999999999999e+22"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            let mut out = Vec::new();
            write_f64(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn singles_as_postgres_prints_them() {
        for (value, expected) in [
            (0.1_f32, "0.1"),
            (51_416_792.0, "5.1416792e+07"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1e-45, "1e-45"),
        ] {
            let mut out = Vec::new();
            write_f32(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
