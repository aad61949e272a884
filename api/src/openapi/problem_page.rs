//! `/docs/errors/{name}`: what a problem type means and what to do about it, as `docs/reference/errors.md` says it. The answers
//! with a problem link to it.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;

use crate::problem::RouteError;

const DOCUMENT: &str = include_str!("../../../docs/reference/errors.md");

/// The header `Link` of a problem.
pub(crate) fn link(slug: &'static str) -> HeaderValue {
    let link = format!("</docs/errors/{slug}>; rel=\"help\"; type=\"text/plain\"");
    HeaderValue::try_from(link).expect("the name of a problem type is of letters and hyphens")
}

pub(crate) async fn section(Path(name): Path<String>) -> Result<impl IntoResponse, RouteError> {
    let text = find(&name).ok_or(RouteError::NoSuchRoute)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], text))
}

/// The section under the heading of that name.
fn find(name: &str) -> Option<&'static str> {
    let sections = DOCUMENT.split("\n### ").skip(1);
    let text = sections.into_iter().find(|text| text.lines().next() == Some(name))?;
    text.split("\n## ").next().map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_by_its_name_alone() {
        let text = find("invalid-request").unwrap();
        assert!(
            text.starts_with("invalid-request\n") && text.contains("**Do.**") && !text.contains("no-such-route"),
            "{text}"
        );
        assert!(find("").is_none() && find("invalid").is_none());
        assert_eq!(link("internal"), "</docs/errors/internal>; rel=\"help\"; type=\"text/plain\"");
    }

    #[test]
    fn the_last_section_ends_before_the_next_chapter() {
        assert!(
            DOCUMENT
                .split("\n### ")
                .skip(1)
                .filter_map(|text| find(text.lines().next()?))
                .all(|text| !text.contains("## "))
        );
    }
}
