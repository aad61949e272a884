//! Floating-point numbers as PostgreSQL prints them: the shortest digits that read back as the same value
//! (`extra_float_digits = 1`), laid out as `%g` does. The digits come from `ryu`; the layout is ours, because
//! PostgreSQL's changes to exponents elsewhere (float8 from 1e15, float4 from 1e6, both below 1e-4).

/// Writes a double; NaN and the infinities as words.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        lay_out(ryu::Buffer::new().format_finite(value), 15, out);
    } else {
        out.extend_from_slice(word(value.is_nan(), value > 0.0));
    }
}

/// Writes a single-precision number the same way.
pub(super) fn write_f32(value: f32, out: &mut Vec<u8>) {
    if value.is_finite() {
        lay_out(ryu::Buffer::new().format_finite(value), 6, out);
    } else {
        out.extend_from_slice(word(value.is_nan(), value > 0.0));
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
        for (value, expected) in
            [(0.1_f32, "0.1"), (100_000.0, "100000"), (1e6, "1e+06"), (1_234_567.0, "1.234567e+06"), (1e-45, "1e-45")]
        {
            let mut out = Vec::new();
            write_f32(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
