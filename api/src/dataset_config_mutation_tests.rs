//! `DATASETS` files with a misspelt policy: no part of it is left out. That no bytes make the reader panic, `fuzz/` tries.

use super::*;

const FILE: &str = r#"
[[dataset]]
name = "people"
relation = "shop.people"
columns = ["id", "email"]
order_by = ["id", { column = "id", direction = "desc" }]
tenants = ["acme"]
row_filter = [{ column = "tenant", op = "=", claim = "tenant" }, { column = "n", op = "in", value = [1, "a", true] }]
mask = { email = "hash" }
role = "reporting"
max_rows = 1000
max_bytes = 1000000

[[dataset]]
relation = '"a.b".*'
"#;

#[test]
fn a_policy_is_never_less_than_what_the_file_says() {
    let whole = Datasets::parse(FILE).unwrap();
    let policy = &whole.named("people").unwrap().policy;
    for field in
        ["tenants", "row_filter", "mask", "role", "max_rows", "max_bytes", "claim", "op = ", "column = \"tenant\""]
    {
        for at in 0..field.find(' ').unwrap_or(field.len()) {
            let mut misspelt = field.to_owned();
            misspelt.replace_range(at..=at, "x");
            let text = FILE.replacen(field, &misspelt, 1);
            // What happens to be spelt as before says the same as before.
            if let Ok(read) = Datasets::parse(&text) {
                assert_eq!(read.named("people").unwrap().policy, *policy, "{misspelt}");
            }
        }
    }
}
