//! The JSON parser of request bodies. It refuses repeated keys in an object, of which `serde_json` keeps the last, so a request
//! with two `columns` would be half ignored. It counts what it reads and stops at the first value over a limit: a parsed value
//! takes up to a hundred times the memory of its text.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::field::member;
use super::limits::{JSON_DEPTH, JSON_KEY_BYTES, JSON_VALUES};
use crate::problem::{FieldError, quoted};

/// Upper bound of the memory of one parsed value, without the text of its strings: an object of one key has room for four
/// entries and an index.
const VALUE_BYTES: usize = 640;

/// Parses the value in `text`. An error of the syntax names the line and the column, one of a limit the field.
pub(super) fn parse(text: &[u8]) -> Result<Value, FieldError> {
    let mut reader = Reader { values_left: JSON_VALUES, depth: 0, refusal: None };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = Strict(&mut reader).deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    parsed.map_err(|error| match reader.refusal {
        Some(refusal) => refusal.into_field_error(),
        None => FieldError::new("body", format!("is not usable JSON: {error}")),
    })
}

/// Upper bound of the memory that [`parse`] needs for `text`, by a look at its bytes. Every value but the first follows a
/// bracket, a comma or a colon. A string with escapes is put together in a buffer before it is copied.
pub(super) fn memory_bound(text: &[u8]) -> usize {
    let values = 1 + text.iter().filter(|byte| matches!(byte, b'[' | b',' | b':')).count();
    2 * text.len() + values.min(JSON_VALUES) * VALUE_BYTES
}

/// What one parse has read so far.
struct Reader {
    values_left: usize,
    /// Arrays and objects around the value that is read.
    depth: usize,
    /// The limit that was passed. Parsing ends there.
    refusal: Option<Refusal>,
}

/// A limit that was passed, and where.
struct Refusal {
    message: String,
    /// Steps from the whole body to the value, the last one first: they are noted on the way back.
    path: Vec<Step>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl Reader {
    fn refuse<E: Error>(&mut self, message: String) -> E {
        self.refusal = Some(Refusal { message, path: Vec::new() });
        E::custom("a limit was passed")
    }

    /// Notes where an error was, if it is one of a limit.
    fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(refusal) = &mut self.refusal {
            refusal.path.push(step());
        }
    }

    fn count_value<E: Error>(&mut self) -> Result<(), E> {
        match self.values_left.checked_sub(1) {
            Some(left) => {
                self.values_left = left;
                Ok(())
            }
            None => Err(self.refuse(format!(
                "is behind the first {JSON_VALUES} values, which is the most that a body may have; name fewer columns, or \
                 fewer values in the filters"
            ))),
        }
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        if self.depth == JSON_DEPTH {
            return Err(self.refuse(format!("is inside of {JSON_DEPTH} arrays and objects, and nothing may be deeper")));
        }
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }
}

impl Refusal {
    fn into_field_error(self) -> FieldError {
        let mut field = String::new();
        for step in self.path.into_iter().rev() {
            match step {
                Step::Key(key) if field.is_empty() => field = member("", &key),
                Step::Key(key) => field = member(&format!("{field}."), &key),
                Step::Index(index) if field.is_empty() => field = format!("body[{index}]"),
                Step::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        FieldError::new(if field.is_empty() { "body".to_owned() } else { field }, self.message)
    }
}

struct Strict<'r>(&'r mut Reader);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.count_value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let reader = self.0;
        reader.enter()?;
        let mut array = Vec::new();
        loop {
            let item = items.next_element_seed(Strict(&mut *reader));
            match item.inspect_err(|_| reader.note(|| Step::Index(array.len())))? {
                Some(item) => array.push(item),
                None => break,
            }
        }
        reader.leave();
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let reader = self.0;
        reader.enter()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key_seed(Key(&mut *reader))? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {} is there twice", quoted(&key))));
            }
            let value = entries.next_value_seed(Strict(&mut *reader));
            let value = value.inspect_err(|_| reader.note(|| Step::Key(key.clone())))?;
            object.insert(key, value);
        }
        reader.leave();
        Ok(Value::Object(object))
    }
}

/// A key, whose length is checked before it is copied.
struct Key<'r>(&'r mut Reader);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        if key.len() > JSON_KEY_BYTES {
            let error = self.0.refuse(format!("is a key of {} bytes; a key may have {JSON_KEY_BYTES}", key.len()));
            self.0.note(|| Step::Key(key.chars().take(80).collect()));
            return Err(error);
        }
        Ok(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (String, String) {
        let FieldError { field, message } = parse(text.as_bytes()).unwrap_err();
        (field, message)
    }

    #[test]
    fn agrees_with_serde_json_on_what_has_no_repeated_key() {
        let text = r#"{"a":[1,-2,3.5,true,null,"\u00e9\n"],"b":{"a":{}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn repeated_keys_are_found_at_any_depth() {
        let (field, message) = refusal(r#"{"columns":[{"source":"id","target":"a","source":"x"}]}"#);
        assert_eq!(field, "body");
        assert!(message.contains("\"source\" is there twice at line 1"), "{message}");
    }

    #[test]
    fn depth_is_bounded_and_the_place_is_named() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(JSON_DEPTH).as_bytes()).is_ok());
        let (field, message) = refusal(&nested(JSON_DEPTH + 1));
        assert_eq!(field, format!("body{}", "[0]".repeat(JSON_DEPTH)));
        assert!(message.contains("inside of 32 arrays"), "{message}");
        // It is noticed at the first bracket too many: what follows is not even JSON.
        assert_eq!(refusal(&"[".repeat(100_000)).0, field);
        let filters = format!(r#"{{"filters": [{{"value": 1}}, {{"value": {}"#, r#"{"a":"#.repeat(200));
        let (field, _) = refusal(&filters);
        assert!(field.starts_with("filters[1].value.a.a.a.a."), "{field}");
        // Depth is not what has been closed again.
        assert!(parse(format!("[{}]", vec!["[[]]"; 1000].join(",")).as_bytes()).is_ok());
    }

    #[test]
    fn the_number_of_values_is_bounded_and_the_place_is_named() {
        let array = |items: usize| format!("[{}]", vec!["0"; items].join(","));
        assert!(parse(array(JSON_VALUES - 1).as_bytes()).is_ok());
        let (field, message) = refusal(&array(JSON_VALUES));
        assert_eq!(field, format!("body[{}]", JSON_VALUES - 1));
        assert!(message.contains("10000 values"), "{message}");
        // The body, the filters, the filter, its value, and the items in there.
        let filter = format!(r#"{{"filters": [{{"value": {}}}]}}"#, array(JSON_VALUES));
        assert_eq!(refusal(&filter).0, format!("filters[0].value[{}]", JSON_VALUES - 4));
        let objects = format!("[{}]", vec!["{\"a\":{}}"; JSON_VALUES].join(","));
        assert_eq!(refusal(&objects).0, format!("body[{}].a", JSON_VALUES / 2 - 1));
    }

    #[test]
    fn keys_are_bounded_and_shown_in_part() {
        let object = |bytes: usize| format!(r#"{{"options": {{"{}": 1}}}}"#, "k".repeat(bytes));
        assert!(parse(object(JSON_KEY_BYTES).as_bytes()).is_ok());
        let (field, message) = refusal(&object(JSON_KEY_BYTES + 1));
        assert_eq!(field, format!("options.{}", "k".repeat(80)));
        assert!(message.contains("257 bytes") && message.contains("256"), "{message}");
        // With an escape the key is not part of the text.
        assert_eq!(refusal(&format!(r#"{{"\u00e4{}": 1}}"#, "ä".repeat(200_000))).0, "ä".repeat(80));
    }

    /// Counts the memory of a parsed value as `Vec` and `indexmap` allocate it.
    fn heap(value: &Value) -> usize {
        const SIZE: usize = size_of::<Value>();
        match value {
            Value::Array(items) => items.capacity() * SIZE + items.iter().map(heap).sum::<usize>(),
            Value::Object(object) if object.is_empty() => 0,
            Value::Object(object) => {
                let room = object.len().max(4).next_power_of_two();
                let index = 2 * (room * (size_of::<usize>() + 1) + 16);
                let entries = room * (SIZE + size_of::<String>() + size_of::<usize>());
                index + entries + object.iter().map(|(key, value)| key.capacity() + heap(value)).sum::<usize>()
            }
            Value::String(text) => text.capacity(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    #[test]
    fn what_is_parsed_takes_no_more_than_the_bound() {
        let array = |item: &str, times: usize| format!("[{}]", vec![item; times].join(","));
        for text in [
            array("0", JSON_VALUES - 1),
            array("[]", JSON_VALUES - 1),
            array("[0]", JSON_VALUES / 2 - 1),
            array("{}", JSON_VALUES - 1),
            array("{\"a\":0}", JSON_VALUES / 2 - 1),
            array("[[[[[[[{\"a\":{\"b\":{\"c\":{}}}}]]]]]]]", JSON_VALUES / 12),
            array("\"\\u0041\"", JSON_VALUES - 1),
            format!("\"{}\"", "x".repeat(200_000)),
            r#"{"format": "csv", "columns": [{"source": "id", "target": "a,b:c"}]}"#.to_owned(),
        ] {
            let value = parse(text.as_bytes()).unwrap();
            // A vector that grows is there twice for a moment.
            let (peak, bound) = (heap(&value) * 3 / 2, memory_bound(text.as_bytes()));
            assert!(peak <= bound, "{peak} bytes, not {bound}: {}", text.chars().take(60).collect::<String>());
            assert!(bound <= 2 * text.len() + JSON_VALUES * VALUE_BYTES);
        }
        assert!(memory_bound(b"\"just one string\"") < 1000);
    }
}
