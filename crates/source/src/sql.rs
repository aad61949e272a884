//! SQL text from requests: quoting, conditions and orders. This is the only place where client text enters SQL: column names only as
//! quoted identifiers that exist in the catalog, values only as quoted literals.

use polyglot_core::column::{ArrayType, Column, TypeNames, WireType};
use polyglot_core::order::Order;
use polyglot_core::relation::{Relation, RelationName};
use polyglot_core::selection::{Direction, Filter, FilterOp, JsonScalar, OrderKey};

/// A name as a quoted SQL identifier.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema-qualified, quoted relation name.
#[must_use]
pub fn quote_relation(name: &RelationName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.name))
}

/// ` ORDER BY …` over the relation as `alias`, or nothing. The alias keeps a key from meaning an output column of the
/// same name.
#[must_use]
pub fn order_sql(order: &Order, alias: &str) -> String {
    if order.keys.is_empty() {
        return String::new();
    }
    let key = |key: &OrderKey| {
        let direction = if key.direction == Direction::Desc { " DESC" } else { "" };
        format!("{alias}.{}{direction}", quote_identifier(&key.column))
    };
    format!(" ORDER BY {}", order.keys.iter().map(key).collect::<Vec<_>>().join(", "))
}

/// The expression of the text that PostgreSQL itself prints, by the type's output function. A cast is not the same: `inet` adds
/// its mask, and the owner of a type may have given it a cast of their own. `IS NOT DISTINCT FROM`, because a composite of NULLs
/// `IS NULL`.
#[must_use]
pub fn text_form(name: &str) -> String {
    format!("CASE WHEN {name} IS NOT DISTINCT FROM NULL THEN NULL ELSE pg_catalog.format('%s', {name}) END")
}

/// The type as which a column's values arrive in binary form, and the expression that selects them; `name` is the column in the
/// statement, and the format may write arrays as PostgreSQL's own text.
#[must_use]
pub fn fetched(column: &Column, name: &str, arrays_as_text: bool) -> (WireType, Option<ArrayType>, String) {
    match column.array {
        Some(_) if arrays_as_text => (WireType::TextForm, None, text_form(name)),
        // Items whose binary form is not known here are taken from the array's text.
        array if column.wire == WireType::TextForm => (WireType::TextForm, array, text_form(name)),
        array => (column.wire, array, name.to_owned()),
    }
}

/// An operator with its schema. Without one, an operator that somebody has created for exactly the types at hand (`varchar`, say,
/// which has none of its own) could be meant, and would run with the rights of the service.
fn operator(schema: &str, name: &str) -> String {
    let schema = if schema == "pg_catalog" { schema.to_owned() } else { quote_identifier(schema) };
    format!("OPERATOR({schema}.{name})")
}

/// An operator that PostgreSQL has built in.
fn built_in(name: &str) -> String {
    operator("pg_catalog", name)
}

/// The condition over the relation as `alias`. The literals have no type of their own, so the server reads each
/// as the column's type, or refuses it.
#[must_use]
pub fn filter_sql(filter: &Filter, column: &Column, alias: &str) -> String {
    let name = format!("{alias}.{}", quote_identifier(&column.name));
    if !filter.path.is_empty() {
        return path_sql(filter, column, &name);
    }
    let value = || filter.values.first().map_or_else(|| "NULL".to_owned(), |value| quote_literal(value));
    let own = |name: &str| operator(&column.type_names.operators, name);
    match filter.op {
        // `IS NULL` of a composite asks for its fields; this asks for the value itself.
        FilterOp::IsNull => format!("{name} IS NOT DISTINCT FROM NULL"),
        FilterOp::IsNotNull => format!("{name} IS DISTINCT FROM NULL"),
        FilterOp::In => {
            let values: Vec<String> = filter.values.iter().map(|value| quote_literal(value)).collect();
            let equal = own("=");
            if column.array.is_some() {
                // There is no type of arrays of arrays.
                let each: Vec<String> = values.iter().map(|value| format!("{name} {equal} {value}")).collect();
                return each.join(" OR ");
            }
            let TypeNames { schema, name: type_name, .. } = &column.type_names;
            let (schema, type_name) = (quote_identifier(schema), quote_identifier(type_name));
            format!("{name} {equal} ANY (ARRAY[{}]::{schema}.{type_name}[])", values.join(", "))
        }
        // What LIKE, ILIKE and <> stand for.
        FilterOp::Like => format!("{name} {} {}", own("~~"), value()),
        FilterOp::Ilike => format!("{name} {} {}", own("~~*"), value()),
        FilterOp::NotEqual => format!("{name} {} {}", own("<>"), value()),
        FilterOp::Equal | FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual => {
            format!("{name} {} {}", own(filter.op.name()), value())
        }
    }
}

/// The regular expression of an escape in the text of a `json` that cannot become a character: U+0000, and half of a surrogate pair.
/// A backslash that is escaped itself begins none.
const NO_CHARACTER: &str = r"(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F][0-9a-fA-F]{2})";

/// A number in JSON that `numeric` can hold. A `jsonb` has no other; a `json` keeps whatever exponent was written.
const HELD_NUMBER: &str = "^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,4})?$";

/// Bytes of such a number, so that its digits, with the exponent, are no more than a `numeric` has.
const HELD_NUMBER_BYTES: usize = 1000;

/// The condition on what a JSON column has at the filter's path. The comparison is that of the value's own JSON type; what is there of
/// another type, or not there, does not match. A cast stands only behind a check of the type, in a CASE, which the server evaluates in
/// its order: no row makes the statement fail.
fn path_sql(filter: &Filter, column: &Column, name: &str) -> String {
    let (document, kind) = if column.wire == WireType::Jsonb {
        (name.to_owned(), "pg_catalog.jsonb_typeof")
    } else {
        // A cast of a type that PostgreSQL has built in is its own. To look into a `json`, the server reads all of its strings, and refuses what has no character. No filter can ask for such a
        // string, so another character may stand there.
        let (text, expression) = (format!("{name}::pg_catalog.text"), quote_literal(NO_CHARACTER));
        let replaced = format!(
            "pg_catalog.regexp_replace({text}, {expression}, {}, 'g')::pg_catalog.json",
            quote_literal(r"\1\\uFFFD")
        );
        (
            format!(
                "(CASE WHEN {text} {} {} THEN {replaced} ELSE {name} END)",
                built_in("~"),
                quote_literal(r"\\u(0000|[dD][89a-fA-F])")
            ),
            "pg_catalog.json_typeof",
        )
    };
    let steps: Vec<String> = filter.path.iter().map(|step| quote_literal(step)).collect();
    let path = format!("ARRAY[{}]::pg_catalog.text[]", steps.join(", "));
    let (found, text) =
        (format!("{kind}({document} {} {path})", built_in("#>")), format!("({document} {} {path})", built_in("#>>")));
    let typed = |scalar: &JsonScalar| match scalar {
        JsonScalar::Number(digits) => ("number", format!("{}::pg_catalog.numeric", quote_literal(digits))),
        JsonScalar::String(text) => ("string", quote_literal(text)),
        JsonScalar::Boolean(truth) => ("boolean", truth.to_string()),
    };
    let compare = |kind: &str, comparison: &str| {
        let (guard, value) = match kind {
            "number" if column.wire == WireType::Jsonb => (None, format!("{text}::pg_catalog.numeric")),
            "number" => (
                Some(format!(
                    "pg_catalog.octet_length({text}) {} {HELD_NUMBER_BYTES} OR {text} {} {}",
                    built_in(">"),
                    built_in("!~"),
                    quote_literal(HELD_NUMBER)
                )),
                format!("{text}::pg_catalog.numeric"),
            ),
            "boolean" => (None, format!("{text}::pg_catalog.bool")),
            _ => (None, text.clone()),
        };
        // A WHEN of its own: the operands of AND are evaluated in any order.
        let guard = guard.map(|condition| format!(" WHEN {condition} THEN false")).unwrap_or_default();
        let equal = built_in("=");
        format!("CASE WHEN ({found} {equal} '{kind}') IS NOT TRUE THEN false{guard} ELSE {value} {comparison} END")
    };
    let operator_name = match filter.op {
        FilterOp::IsNull => return format!("coalesce({found}, 'null') {} 'null'", built_in("=")),
        FilterOp::IsNotNull => return format!("coalesce({found}, 'null') {} 'null'", built_in("<>")),
        FilterOp::NotEqual => "<>",
        FilterOp::Like => "~~",
        FilterOp::Ilike => "~~*",
        FilterOp::In => "=",
        FilterOp::Equal | FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual => {
            filter.op.name()
        }
    };
    // Only what validation has let through is there; a value that cannot be read matches nothing.
    let scalars: Vec<_> = filter.values.iter().filter_map(|value| JsonScalar::read(value)).collect();
    let scalars: Vec<_> = scalars.iter().map(typed).collect();
    let conditions: Vec<String> = if filter.op == FilterOp::In {
        let kinds = ["number", "string", "boolean"].into_iter();
        let of_kind = |kind: &str| scalars.iter().filter(|it| it.0 == kind).map(|it| it.1.as_str()).collect::<Vec<_>>();
        let lists = kinds.map(|kind| (kind, of_kind(kind))).filter(|(_, values)| !values.is_empty());
        lists
            .map(|(kind, values)| {
                compare(kind, &format!("{} ANY (ARRAY[{}])", built_in(operator_name), values.join(", ")))
            })
            .collect()
    } else {
        scalars
            .iter()
            .take(1)
            .map(|(kind, value)| compare(kind, &format!("{} {value}", built_in(operator_name))))
            .collect()
    };
    if conditions.is_empty() { "false".to_owned() } else { conditions.join(" OR ") }
}

/// ` WHERE …` for all filters over the relation as `alias`, or nothing.
///
/// # Errors
/// The name of a filter's column that the relation does not have.
pub fn where_sql(filters: &[Filter], relation: &Relation, alias: &str) -> Result<String, String> {
    Ok(all_of(&conditions(filters, relation, alias)?))
}

/// Each filter as a condition in parentheses; errors as of [`where_sql`].
pub fn conditions(filters: &[Filter], relation: &Relation, alias: &str) -> Result<Vec<String>, String> {
    let mut conditions = Vec::with_capacity(filters.len());
    for filter in filters {
        let column = relation.column(&filter.column).ok_or_else(|| filter.column.clone())?;
        conditions.push(format!("({})", filter_sql(filter, column, alias)));
    }
    Ok(conditions)
}

/// ` WHERE …` for these conditions, or nothing.
#[must_use]
pub fn all_of(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Text as an SQL literal that is valid whatever `standard_conforming_strings` is. The text must not contain U+0000, which
/// PostgreSQL does not accept.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyglot_core::request::ExportRequest;

    fn request(order_by: &[(&str, Direction)]) -> ExportRequest {
        let mut request = ExportRequest::new("d", RelationName::records(), "csv", Vec::new());
        request.order_by = order_by
            .iter()
            .map(|(name, direction)| OrderKey { column: (*name).into(), direction: *direction })
            .collect();
        request
    }

    #[test]
    fn the_key_breaks_ties() {
        let keyed = Relation::for_test(&["id", "a", "b"], &["id", "b"]);
        for (asked, sql) in [
            (&[][..], r#" ORDER BY r."id", r."b""#),
            (&[("a", Direction::Desc)][..], r#" ORDER BY r."a" DESC, r."id", r."b""#),
            (&[("b", Direction::Desc), ("a", Direction::Asc)][..], r#" ORDER BY r."b" DESC, r."a", r."id""#),
        ] {
            let order = Order::of(&request(asked), &keyed);
            assert_eq!((order_sql(&order, "r").as_str(), order.total), (sql, true));
        }
        let keyless = Relation::for_test(&["a"], &[]);
        let order = Order::of(&request(&[]), &keyless);
        assert_eq!((order_sql(&order, "r").as_str(), order.total), ("", false));
        assert!(!Order::of(&request(&[("a", Direction::Asc)]), &keyless).total);
    }

    #[test]
    fn values_are_literals_and_names_identifiers() {
        let relation = Relation::for_test(&["id", "a\"b"], &[]);
        let filter = |column: &str, op, values: &[&str]| Filter {
            column: column.into(),
            path: Vec::new(),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        for (filter, sql) in [
            (
                filter("id", FilterOp::Equal, &["x'; DROP TABLE t; --"]),
                r#" WHERE (r."id" OPERATOR(pg_catalog.=) 'x''; DROP TABLE t; --')"#,
            ),
            (filter("id", FilterOp::NotEqual, &[r"\'"]), r#" WHERE (r."id" OPERATOR(pg_catalog.<>)  E'\\''')"#),
            (
                filter("a\"b", FilterOp::In, &["1", "2"]),
                r#" WHERE (r."a""b" OPERATOR(pg_catalog.=) ANY (ARRAY['1', '2']::"pg_catalog"."text"[]))"#,
            ),
            (filter("id", FilterOp::Ilike, &["A%"]), r#" WHERE (r."id" OPERATOR(pg_catalog.~~*) 'A%')"#),
            (filter("id", FilterOp::IsNull, &[]), r#" WHERE (r."id" IS NOT DISTINCT FROM NULL)"#),
        ] {
            assert_eq!(where_sql(&[filter], &relation, "r").unwrap(), sql);
        }
        assert_eq!(where_sql(&[filter("gone", FilterOp::IsNull, &[])], &relation, "r"), Err("gone".to_owned()));
    }

    #[test]
    fn what_is_at_a_path_is_compared_as_its_type_and_steps_are_literals() {
        let mut relation = Relation::for_test(&["j"], &[]);
        relation.columns[0].wire = WireType::Jsonb;
        let filter = |op, values: &[&str]| Filter {
            column: "j".to_owned(),
            path: vec!["a'b".to_owned(), "id".to_owned()],
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let path = "ARRAY['a''b', 'id']::pg_catalog.text[]";
        let found = format!(r#"pg_catalog.jsonb_typeof(r."j" OPERATOR(pg_catalog.#>) {path})"#);
        let text = format!(r#"(r."j" OPERATOR(pg_catalog.#>>) {path})"#);
        for (filter, sql) in [
            (
                filter(FilterOp::Equal, &["17"]),
                format!(
                    "CASE WHEN ({found} OPERATOR(pg_catalog.=) 'number') IS NOT TRUE THEN false \
                     ELSE {text}::pg_catalog.numeric OPERATOR(pg_catalog.=) '17'::pg_catalog.numeric END"
                ),
            ),
            (
                filter(FilterOp::NotEqual, &["\"x'; DROP TABLE t; --\""]),
                format!(
                    "CASE WHEN ({found} OPERATOR(pg_catalog.=) 'string') IS NOT TRUE THEN false \
                     ELSE {text} OPERATOR(pg_catalog.<>) 'x''; DROP TABLE t; --' END"
                ),
            ),
            (
                filter(FilterOp::In, &["true", "\"a\"", "\"b\""]),
                format!(
                    "CASE WHEN ({found} OPERATOR(pg_catalog.=) 'string') IS NOT TRUE THEN false \
                     ELSE {text} OPERATOR(pg_catalog.=) ANY (ARRAY['a', 'b']) END OR \
                     CASE WHEN ({found} OPERATOR(pg_catalog.=) 'boolean') IS NOT TRUE THEN false \
                     ELSE {text}::pg_catalog.bool OPERATOR(pg_catalog.=) ANY (ARRAY[true]) END"
                ),
            ),
            (filter(FilterOp::IsNull, &[]), format!("coalesce({found}, 'null') OPERATOR(pg_catalog.=) 'null'")),
            // Nothing but what validation lets through becomes SQL.
            (filter(FilterOp::Equal, &["17; DROP TABLE t"]), "false".to_owned()),
        ] {
            assert_eq!(where_sql(&[filter], &relation, "r").unwrap(), format!(" WHERE ({sql})"));
        }
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier(r#"id"; DROP TABLE records; --"#), r#""id""; DROP TABLE records; --""#);
    }
}
