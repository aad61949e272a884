//! PostgreSQL's `numeric` on the wire and its exact decimal digits. Follows `numeric_send` and
//! `get_str_from_var` in PostgreSQL's numeric.c.

use super::value_error::ValueError;

/// A numeric, borrowed from the wire: base-10000 digits, the first one worth 10000^weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Numeric<'a> {
    Finite { negative: bool, weight: i16, scale: u16, digits: &'a [u8] },
    NaN,
    Infinity,
    NegativeInfinity,
}

impl<'a> Numeric<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, ValueError> {
        let Some((header, digits)) = bytes.split_first_chunk::<8>() else {
            return Err(ValueError::Length(bytes.len()));
        };
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let negative = match word(4) {
            0x0000 => false,
            0x4000 => true,
            0xC000 => return Ok(Self::NaN),
            0xD000 => return Ok(Self::Infinity),
            0xF000 => return Ok(Self::NegativeInfinity),
            _ => return Err(ValueError::Numeric),
        };
        if digits.len() != usize::from(word(0)) * 2 || word(6) > 0x3fff {
            return Err(ValueError::Numeric);
        }
        if digits.chunks_exact(2).any(|pair| u16::from_be_bytes([pair[0], pair[1]]) >= 10_000) {
            return Err(ValueError::Numeric);
        }
        #[expect(clippy::cast_possible_wrap, reason = "the wire has the bits of an int16")]
        let weight = word(2) as i16;
        Ok(Self::Finite { negative, weight, scale: word(6), digits })
    }

    /// Writes the digits as PostgreSQL does: as many decimals as the scale says, none lost.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self::Finite { negative, weight, scale, digits } = *self else {
            out.extend_from_slice(match self {
                Self::Infinity => b"Infinity",
                Self::NegativeInfinity => b"-Infinity",
                Self::NaN | Self::Finite { .. } => b"NaN",
            });
            return;
        };
        if negative {
            out.push(b'-');
        }
        if weight < 0 {
            out.push(b'0');
        } else {
            let last = i32::from(weight);
            // PostgreSQL sends no zeros in front; if there were any, the number would be none in JSON.
            let first = (0..last).find(|index| group(digits, *index) != 0).unwrap_or(last);
            out.extend_from_slice(itoa::Buffer::new().format(group(digits, first)).as_bytes());
            for index in first + 1..=last {
                push_four(out, group(digits, index));
            }
        }
        if scale > 0 {
            out.push(b'.');
            let end = out.len() + usize::from(scale);
            let mut index = i32::from(weight) + 1;
            while out.len() < end {
                push_four(out, group(digits, index));
                index += 1;
            }
            out.truncate(end);
        }
    }

    /// The value times 10^scale as a whole number, or `None` where it is not finite, does not fit 38 digits, or
    /// has decimals beyond `scale`.
    pub fn to_scaled(self, scale: u8) -> Option<i128> {
        let Self::Finite { negative, weight, digits, .. } = self else { return None };
        const LIMIT: i128 = 10_i128.pow(38);
        let count = i32::try_from(digits.len() / 2).ok()?;
        // The power of ten of the lowest digit group once everything is multiplied by 10^scale.
        let lowest = (i32::from(weight) + 1 - count) * 4 + i32::from(scale);
        let mut total: i128 = 0;
        for index in 0..count {
            let exponent = lowest + (count - 1 - index) * 4;
            let value = i128::from(group(digits, index));
            // What this group adds to the whole number: all four digits, the upper ones, or none. Digits that
            // would be cut off must be zeros.
            let kept = 10_000_i128.min(10_i128.pow(u32::try_from((exponent + 4).clamp(0, 4)).ok()?));
            let cut = 10_000 / kept;
            if value % cut != 0 {
                return None;
            }
            total = total.checked_mul(kept)?.checked_add(value / cut)?;
        }
        if lowest > 0 && total != 0 {
            total = total.checked_mul(10_i128.checked_pow(u32::try_from(lowest).ok()?)?)?;
        }
        (total < LIMIT).then_some(if negative { -total } else { total })
    }
}

/// The base-10000 digit at `index`; beyond the stored ones it is 0.
fn group(digits: &[u8], index: i32) -> u16 {
    usize::try_from(index)
        .ok()
        .and_then(|index| digits.get(index * 2..index * 2 + 2))
        .map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
}

fn push_four(out: &mut Vec<u8>, value: u16) {
    let digit = |divisor: u16| b'0' + u8::try_from(value / divisor % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(1000), digit(100), digit(10), digit(1)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let count = u16::try_from(digits.len()).unwrap();
        let mut bytes = Vec::new();
        bytes.extend(count.to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(scale.to_be_bytes());
        bytes.extend(digits.iter().flat_map(|digit| digit.to_be_bytes()));
        bytes
    }

    fn shown(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        Numeric::read(bytes).unwrap().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn digits_are_exact() {
        assert_eq!(shown(&wire(0, 0, 0, &[])), "0");
        assert_eq!(shown(&wire(0, 0, 4, &[])), "0.0000");
        assert_eq!(shown(&wire(0, 0x4000, 4, &[12, 3400])), "-12.3400");
        assert_eq!(shown(&wire(1, 0, 0, &[1])), "10000");
        assert_eq!(shown(&wire(2, 0, 2, &[1, 0, 7, 500])), "100000007.05");
        assert_eq!(shown(&wire(-2, 0, 9, &[1234])), "0.000012340");
        assert_eq!(shown(&wire(-1, 0, 3, &[9990])), "0.999");
        assert_eq!(shown(&wire(0, 0xC000, 0, &[])), "NaN");
        assert_eq!(shown(&wire(2, 0, 0, &[0, 5, 6])), "50006");
        assert_eq!(shown(&wire(2, 0, 0, &[])), "0");
    }

    #[test]
    fn scaled_numbers_are_exact_or_refused() {
        let scaled = |bytes: &[u8], scale| Numeric::read(bytes).unwrap().to_scaled(scale);
        assert_eq!(scaled(&wire(0, 0x4000, 4, &[12, 3400]), 4), Some(-123_400));
        assert_eq!(scaled(&wire(0, 0, 2, &[12, 3400]), 2), Some(1234));
        assert_eq!(scaled(&wire(0, 0, 4, &[12, 3456]), 2), None);
        assert_eq!(scaled(&wire(2, 0, 0, &[5]), 0), Some(500_000_000));
        assert_eq!(scaled(&wire(0, 0, 0, &[]), 4), Some(0));
        assert_eq!(scaled(&wire(-1, 0, 4, &[1]), 4), Some(1));
        assert_eq!(scaled(&wire(-1, 0, 6, &[0, 100]), 4), None);
        assert_eq!(scaled(&wire(9, 0, 0, &[100]), 0), None);
        let widest = wire(9, 0, 0, &[99, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999]);
        assert_eq!(scaled(&widest, 0), Some(10_i128.pow(38) - 1));
        assert_eq!(scaled(&wire(0, 0xD000, 0, &[]), 0), None);
        // 36 digits before the point and 2 behind it: the last group is cut in half, and everything still fits.
        let full = wire(8, 0, 2, &[9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9900]);
        assert_eq!(scaled(&full, 2), Some(10_i128.pow(38) - 1));
        assert_eq!(scaled(&full, 1), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert_eq!(Numeric::read(&[0; 7]), Err(ValueError::Length(7)));
        assert_eq!(Numeric::read(&wire(0, 0, 0, &[10_000])), Err(ValueError::Numeric));
        assert_eq!(Numeric::read(&wire(0, 0x1234, 0, &[1])), Err(ValueError::Numeric));
        assert_eq!(Numeric::read(&wire(0, 0, 0, &[1])[..9]), Err(ValueError::Numeric));
    }
}
