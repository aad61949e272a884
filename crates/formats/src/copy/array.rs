//! PostgreSQL's arrays: their binary form, and their text form for items that have no binary form known here. Total:
//! bytes that make no sense give an error. Follows `array_send` and `array_out` in PostgreSQL's arrayfuncs.c.

use polyglot_core::column::{ArrayType, WireType};

use super::value::Value;
use super::value_error::ValueError;

/// PostgreSQL's MAXDIM.
const MOST_DIMENSIONS: usize = 6;

/// An array, borrowed from the wire: sizes of its dimensions, outermost first, and its items in row-major order.
/// Lower bounds are left out; no format but PostgreSQL's own text has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    item: WireType,
    sizes: [usize; MOST_DIMENSIONS],
    dimensions: usize,
    items: &'a [u8],
}

fn take_i32(bytes: &mut &[u8]) -> Result<i32, ValueError> {
    let (first, rest) = bytes.split_first_chunk::<4>().ok_or(ValueError::Array)?;
    *bytes = rest;
    Ok(i32::from_be_bytes(*first))
}

/// The next item, which is NULL if its length is -1.
fn take_item<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, ValueError> {
    let length = take_i32(bytes)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| ValueError::Array)?;
    let (item, rest) = bytes.split_at_checked(length).ok_or(ValueError::Array)?;
    *bytes = rest;
    Ok(Some(item))
}

impl<'a> Array<'a> {
    /// Reads a column's field. `buffer` holds the items if they have to be taken out of the array's text.
    pub fn read(
        item: WireType,
        array: ArrayType,
        bytes: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> Result<Self, ValueError> {
        if item == WireType::TextForm {
            let text = std::str::from_utf8(bytes).map_err(|_| ValueError::Utf8)?;
            buffer.clear();
            text_to_binary(text, array.delimiter, buffer)?;
            Self::read_binary(item, buffer)
        } else {
            Self::read_binary(item, bytes)
        }
    }

    fn read_binary(item: WireType, mut bytes: &'a [u8]) -> Result<Self, ValueError> {
        let dimensions = usize::try_from(take_i32(&mut bytes)?).ok().filter(|it| *it <= MOST_DIMENSIONS);
        let dimensions = dimensions.ok_or(ValueError::Array)?;
        // Whether there are NULLs, which the items say themselves.
        take_i32(&mut bytes)?;
        // The items' type, which the catalog has said.
        take_i32(&mut bytes)?;
        let mut sizes = [0; MOST_DIMENSIONS];
        for size in &mut sizes[..dimensions] {
            // An empty array has no dimensions at all, so no size is 0.
            *size = usize::try_from(take_i32(&mut bytes)?).ok().filter(|size| *size > 0).ok_or(ValueError::Array)?;
            let _lower_bound = take_i32(&mut bytes)?;
        }
        let count =
            sizes[..dimensions].iter().try_fold(usize::from(dimensions > 0), |all, size| all.checked_mul(*size));
        let count = count.ok_or(ValueError::Array)?;
        let array = Self { item, sizes, dimensions, items: bytes };
        // Each takes four bytes at least, so a count that was made up ends soon.
        for _ in 0..count {
            take_item(&mut bytes)?;
        }
        if bytes.is_empty() { Ok(array) } else { Err(ValueError::Array) }
    }

    /// The size of each dimension, outermost first; none of an empty array.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes[..self.dimensions]
    }

    /// The items in row-major order; `None` is NULL.
    pub fn items(&self) -> impl Iterator<Item = Result<Option<Value<'a>>, ValueError>> + use<'a> {
        let (item, mut rest) = (self.item, self.items);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            Some(take_item(&mut rest).and_then(|bytes| bytes.map(|bytes| Value::read(item, bytes)).transpose()))
        })
    }
}

/// What is open while an array's text is read.
#[derive(Default)]
struct Levels {
    /// Sizes that the first row of each level had; the others must have the same.
    sizes: Vec<Option<usize>>,
    /// Items so far in each open level.
    open: Vec<usize>,
}

impl Levels {
    fn close(&mut self) -> Result<(), ValueError> {
        let count = self.open.pop().ok_or(ValueError::Array)?;
        let expected = self.sizes.get_mut(self.open.len()).ok_or(ValueError::Array)?;
        match expected {
            None => *expected = Some(count),
            Some(size) if *size == count => {}
            Some(_) => return Err(ValueError::Array),
        }
        if let Some(outer) = self.open.last_mut() {
            *outer += 1;
        }
        Ok(())
    }
}

/// Turns the text of an array into the binary form of a `text[]` with the same items.
fn text_to_binary(text: &str, delimiter: u8, out: &mut Vec<u8>) -> Result<(), ValueError> {
    // `[2:4][0:1]={…}`: lower bounds that are not 1.
    let text = match text.strip_prefix('[') {
        Some(_) => text.split_once('=').ok_or(ValueError::Array)?.1,
        None => text,
    };
    let bytes = text.as_bytes();
    let mut items = Vec::new();
    let mut item = Vec::new();
    let mut levels = Levels::default();
    let mut depth_of_items = None;
    let mut at = 0;
    // Whether a value may come here, as opposed to a delimiter or an end.
    let mut expects_value = true;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' if expects_value && levels.open.len() < MOST_DIMENSIONS => {
                levels.open.push(0);
                if levels.sizes.len() < levels.open.len() {
                    levels.sizes.push(None);
                }
                at += 1;
            }
            b'}' if !expects_value || levels.open.last() == Some(&0) => {
                levels.close()?;
                expects_value = false;
                at += 1;
                if levels.open.is_empty() {
                    break;
                }
            }
            byte if *byte == delimiter && !expects_value => {
                expects_value = true;
                at += 1;
            }
            _ if expects_value && !levels.open.is_empty() => {
                if *depth_of_items.get_or_insert(levels.open.len()) != levels.open.len() {
                    return Err(ValueError::Array);
                }
                item.clear();
                let (length, null) = take_text_item(&bytes[at..], delimiter, &mut item)?;
                at += length;
                if null {
                    items.extend((-1_i32).to_be_bytes());
                } else {
                    items.extend(i32::try_from(item.len()).map_err(|_| ValueError::Array)?.to_be_bytes());
                    items.extend_from_slice(&item);
                }
                *levels.open.last_mut().ok_or(ValueError::Array)? += 1;
                expects_value = false;
            }
            _ => return Err(ValueError::Array),
        }
    }
    if !levels.open.is_empty() || levels.sizes.is_empty() || at != bytes.len() {
        return Err(ValueError::Array);
    }
    let sizes: Vec<i32> = levels.sizes.iter().map_while(|size| i32::try_from((*size)?).ok()).collect();
    let dimensions = if depth_of_items.is_none() { 0 } else { sizes.len() };
    if dimensions > 0 && depth_of_items != Some(dimensions) {
        return Err(ValueError::Array);
    }
    out.extend(i32::try_from(dimensions).map_err(|_| ValueError::Array)?.to_be_bytes());
    out.extend([0; 8]);
    for size in &sizes[..dimensions] {
        out.extend(size.to_be_bytes());
        out.extend(1_i32.to_be_bytes());
    }
    out.extend_from_slice(&items);
    Ok(())
}

/// Reads one item at the start of `bytes` into `item`. Returns the length it takes and whether it is NULL.
fn take_text_item(bytes: &[u8], delimiter: u8, item: &mut Vec<u8>) -> Result<(usize, bool), ValueError> {
    let quoted = bytes.first() == Some(&b'"');
    let mut at = usize::from(quoted);
    loop {
        match *bytes.get(at).ok_or(ValueError::Array)? {
            b'\\' => {
                item.push(*bytes.get(at + 1).ok_or(ValueError::Array)?);
                at += 2;
            }
            b'"' if quoted => return Ok((at + 1, false)),
            b'}' if !quoted => break,
            byte if !quoted && byte == delimiter => break,
            b'"' | b'{' if !quoted => return Err(ValueError::Array),
            byte => {
                item.push(byte);
                at += 1;
            }
        }
    }
    if at == 0 {
        return Err(ValueError::Array);
    }
    // An item that reads like it is quoted.
    Ok((at, item.eq_ignore_ascii_case(b"NULL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: ArrayType = ArrayType { dimensions: 1, delimiter: b',' };

    /// The sizes and the items of an array's text.
    fn texts(text: &str) -> Result<(Vec<usize>, Vec<Option<String>>), ValueError> {
        let mut buffer = Vec::new();
        let array = Array::read(WireType::TextForm, COMMA, text.as_bytes(), &mut buffer)?;
        let items = array.items().map(|item| match item? {
            Some(Value::Text(text)) => Ok(Some(text.to_owned())),
            None => Ok(None),
            Some(_) => Err(ValueError::Array),
        });
        Ok((array.sizes().to_vec(), items.collect::<Result<_, _>>()?))
    }

    fn strings(items: &[&str]) -> Vec<Option<String>> {
        items.iter().map(|item| Some((*item).to_owned())).collect()
    }

    #[test]
    fn text_is_taken_apart() {
        assert_eq!(texts("{}"), Ok((vec![], vec![])));
        assert_eq!(texts("{a,b c}"), Ok((vec![2], strings(&["a", "b c"]))));
        assert_eq!(texts(r#"{"a,b","c\"d\\e",""}"#), Ok((vec![3], strings(&["a,b", "c\"d\\e", ""]))));
        assert_eq!(texts(r#"{NULL,"NULL"}"#), Ok((vec![2], vec![None, Some("NULL".to_owned())])));
        assert_eq!(texts("{{1,2,3},{4,5,6}}"), Ok((vec![2, 3], strings(&["1", "2", "3", "4", "5", "6"]))));
        assert_eq!(texts("[-1:0]={x,y}"), Ok((vec![2], strings(&["x", "y"]))));
        assert_eq!(texts(r#"{"(1,\"a b\")"}"#), Ok((vec![1], strings(&["(1,\"a b\")"]))));
        let mut buffer = Vec::new();
        let boxes = ArrayType { dimensions: 1, delimiter: b';' };
        let array = Array::read(WireType::TextForm, boxes, b"{(1,1),(0,0);(2,2),(1,1)}", &mut buffer).unwrap();
        assert_eq!(array.sizes(), [2]);
    }

    #[test]
    fn text_that_is_no_array_is_an_error() {
        for text in [
            "",
            "{",
            "}",
            "{a",
            "{a,}",
            "{,a}",
            "{a}}",
            "{a}x",
            "{{1},{1,2}}",
            "{{1},2}",
            "{1,{2}}",
            "{\"a}",
            "{a\\",
            "[1:2",
            "{a\"b}",
            "{{}",
            "{a b{c}",
            "{{{{{{{1}}}}}}}",
        ] {
            assert_eq!(texts(text), Err(ValueError::Array), "{text}");
        }
    }

    fn binary(header: &[i32], items: &[Option<i32>]) -> Vec<u8> {
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        for item in items {
            match item {
                Some(value) => bytes.extend([4_i32.to_be_bytes(), value.to_be_bytes()].concat()),
                None => bytes.extend((-1_i32).to_be_bytes()),
            }
        }
        bytes
    }

    #[test]
    fn binary_is_read_and_nonsense_is_an_error() {
        let bytes = binary(&[2, 1, 23, 2, 1, 2, 5], &[Some(1), None, Some(3), Some(4)]);
        let array = Array::read_binary(WireType::Int4, &bytes).unwrap();
        assert_eq!(array.sizes(), [2, 2]);
        let items: Vec<_> = array.items().map(Result::unwrap).collect();
        assert_eq!(items, [Some(Value::Int(1)), None, Some(Value::Int(3)), Some(Value::Int(4))]);
        assert_eq!(Array::read_binary(WireType::Int4, &binary(&[0, 0, 23], &[])).unwrap().sizes(), [0; 0]);
        for end in 0..bytes.len() {
            assert_eq!(Array::read_binary(WireType::Int4, &bytes[..end]), Err(ValueError::Array));
        }
        for header in
            [[7, 0, 23, 1, 1], [-1, 0, 23, 1, 1], [1, 0, 23, -1, 1], [1, 0, 23, i32::MAX, 1], [1, 0, 23, 0, 1]]
        {
            assert_eq!(Array::read_binary(WireType::Int4, &binary(&header, &[Some(1)])), Err(ValueError::Array));
        }
        // An item of another length than its type has.
        let array = Array::read_binary(WireType::Int8, &bytes).unwrap();
        assert_eq!(array.items().next(), Some(Err(ValueError::Length(4))));
    }
}
