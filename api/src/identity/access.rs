//! What each route needs of its caller. A route that is not listed here needs the scope `admin`, so that one that is added
//! without a thought is closed.

use axum::http::Method;
use polyglot_core::scope::Scope;

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: it tells nothing that belongs to anybody.
    Public,
    /// An identity, with whatever scopes.
    Identified,
    /// An identity with all of these scopes.
    Scopes(&'static [Scope]),
}

impl Access {
    /// What a request needs; `route` is the pattern that its path matched, if any.
    #[expect(clippy::match_same_arms, reason = "each arm is one kind of route, with its reason")]
    pub(crate) fn to(method: &Method, route: Option<&str>) -> Self {
        // Without one, an unknown path cannot be told from one that exists.
        let Some(route) = route else { return Self::Identified };
        let reads = [Method::GET, Method::HEAD].contains(method);
        match route {
            // Probes; the page, which is where people sign in; and the sign-in itself.
            "/health" | "/health/ready" | "/" | "/assets/{name}" | "/session" => Self::Public,
            // What a refusal means, of an identity among them.
            "/docs/errors/{name}" => Self::Public,
            "/openapi.json" | "/docs" | "/docs/" | "/docs/{file}" => Self::Identified,
            "/exports" if *method == Method::POST => Self::Scopes(&[Scope::CreateExports]),
            "/exports" | "/events" | "/limits" if reads => Self::Scopes(&[Scope::ReadExports]),
            // It shows rows.
            "/exports/preview" => Self::Scopes(&[Scope::CreateExports, Scope::ReadExports]),
            "/audit" | "/exports/benchmark" => Self::Scopes(&[Scope::Admin]),
            "/exports/{id}" if *method == Method::DELETE => Self::Scopes(&[Scope::DeleteExports]),
            "/exports/{id}" | "/exports/{id}/download" | "/exports/{id}/events" | "/exports/{id}/manifest" if reads => {
                Self::Scopes(&[Scope::ReadExports])
            }
            "/datasets" | "/datasets/{name}" => Self::Scopes(&[Scope::ReadDatasets]),
            "/metrics" => Self::Scopes(&[Scope::Metrics]),
            // A method that the path does not take: the answer says which it takes.
            "/exports"
            | "/events"
            | "/limits"
            | "/exports/{id}"
            | "/exports/{id}/download"
            | "/exports/{id}/events"
            | "/exports/{id}/manifest" => Self::Identified,
            _ => Self::Scopes(&[Scope::Admin]),
        }
    }
}
