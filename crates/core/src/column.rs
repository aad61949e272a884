//! A column of a relation and its type: how a value of it arrives in binary `COPY`. Reading the catalog is the crate
//! `source`'s, decoding values the crate `formats`'.

/// How a column arrives in binary `COPY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Precision and scale where the column declares them.
    Numeric(Option<(u16, i16)>),
    /// UTF-8 text; also enums, whose labels are sent.
    Text,
    Bytea,
    Date,
    /// Microseconds since midnight.
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Jsonb,
    /// Any other type: the server is asked for the text it prints.
    TextForm,
}

impl WireType {
    /// One of each for tests that go through all of them; `numeric` with and without a precision.
    pub const SAMPLES: [Self; 18] = [
        Self::Bool,
        Self::Int2,
        Self::Int4,
        Self::Int8,
        Self::Float4,
        Self::Float8,
        Self::Numeric(Some((18, 4))),
        Self::Numeric(None),
        Self::Text,
        Self::Bytea,
        Self::Date,
        Self::Time,
        Self::Timestamp,
        Self::TimestampTz,
        Self::Uuid,
        Self::Json,
        Self::Jsonb,
        Self::TextForm,
    ];

    /// The DECIMAL that holds every finite value of `numeric(p, s)`: its precision and scale, or `None` where 38 digits
    /// are not enough or none are declared. A negative scale means zeros before the point, a scale above the precision
    /// zeros behind it.
    #[must_use]
    pub fn decimal(self) -> Option<(u8, u8)> {
        let Self::Numeric(Some((precision, scale))) = self else { return None };
        let precision = i32::from(precision) + i32::from(-scale).max(0);
        let scale = i32::from(scale).max(0);
        let precision = u8::try_from(precision.max(scale)).ok().filter(|precision| (1..=38).contains(precision))?;
        Some((precision, u8::try_from(scale).ok()?))
    }
}

/// An array of the column's `wire` type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayType {
    /// As declared, at least 1. PostgreSQL keeps no value to it.
    pub dimensions: u8,
    /// Between the items of its text: a comma, but for `box` a semicolon.
    pub delimiter: u8,
}

/// How a condition on a column names the column's type and its operators: with their schemas, so that nothing that somebody has
/// created in another schema can be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeNames {
    /// Schema and name of the type, domains resolved.
    pub schema: String,
    pub name: String,
    /// Schema of the operators that the type's order is made of.
    pub operators: String,
}

impl TypeNames {
    /// A type that PostgreSQL has built in.
    #[must_use]
    pub fn built_in(name: &str) -> Self {
        Self { schema: "pg_catalog".to_owned(), name: name.to_owned(), operators: "pg_catalog".to_owned() }
    }
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// The type as SQL spells it, `numeric(18,4)`.
    pub sql_type: String,
    /// The type as conditions name it.
    pub type_names: TypeNames,
    /// Of the value, or of an array's items.
    pub wire: WireType,
    pub array: Option<ArrayType>,
    pub nullable: bool,
    /// Whether a value may be larger than a page: those are looked at before they are fetched.
    pub wide: bool,
    /// Whether the type's text is a number, a date or the like: no user typed it, so it is no formula.
    pub is_non_text: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_holds_every_value_of_its_numeric() {
        for (modifier, decimal) in [
            (Some((18, 4)), Some((18, 4))),
            (Some((38, 38)), Some((38, 38))),
            (Some((5, -2)), Some((7, 0))),
            (Some((3, 5)), Some((5, 5))),
            (Some((39, 0)), None),
            (Some((37, -2)), None),
            (None, None),
        ] {
            assert_eq!(WireType::Numeric(modifier).decimal(), decimal, "{modifier:?}");
        }
        assert_eq!(WireType::Int4.decimal(), None);
    }
}
