//! What the documents say about each problem type (`docs/reference/errors.md`), and the link that leads a client there.

use axum::http::HeaderValue;

const DOCUMENT: &str = include_str!("../../../docs/reference/errors.md");

/// The header `Link` of a problem.
pub(super) fn link(slug: &'static str) -> HeaderValue {
    let link = format!("</docs/errors/{slug}>; rel=\"help\"; type=\"text/plain\"");
    HeaderValue::try_from(link).expect("the name of a problem type is of letters and hyphens")
}

/// The section about the problem type of that name.
pub(crate) fn help(name: &str) -> Option<&'static str> {
    let sections = DOCUMENT.split("\n### ").skip(1);
    let text = sections.into_iter().find(|text| text.lines().next() == Some(name))?;
    text.split("\n## ").next().map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_by_its_name_alone() {
        let text = help("invalid-request").unwrap();
        assert!(
            text.starts_with("invalid-request\n") && text.contains("**Do.**") && !text.contains("no-such-route"),
            "{text}"
        );
        assert!(help("").is_none() && help("invalid").is_none());
        assert_eq!(link("internal"), "</docs/errors/internal>; rel=\"help\"; type=\"text/plain\"");
    }

    #[test]
    fn the_last_section_ends_before_the_next_chapter() {
        let names = DOCUMENT.split("\n### ").skip(1).filter_map(|text| text.lines().next());
        assert!(names.filter_map(help).all(|text| !text.contains("## ")));
    }
}
