//! Scopes: what the owner of an API key or of a token may do.

/// One right of an identity. Every scope has its name in keys, tokens, documents and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Submit exports, and see their first rows before.
    CreateExports,
    /// See exports of the tenant, follow them, and fetch their files.
    ReadExports,
    /// Cancel exports of the tenant and delete their files.
    DeleteExports,
    /// See which datasets there are, and their columns.
    ReadDatasets,
    /// Read the metrics of the service, which are those of all tenants.
    Metrics,
    /// Run benchmarks, and everything that the other scopes allow.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 6] =
        [Self::CreateExports, Self::ReadExports, Self::DeleteExports, Self::ReadDatasets, Self::Metrics, Self::Admin];

    /// The scopes of a client that exports and fetches its files, which a key has unless others are named.
    pub const OF_CLIENTS: [Self; 4] = [Self::CreateExports, Self::ReadExports, Self::DeleteExports, Self::ReadDatasets];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateExports => "exports:create",
            Self::ReadExports => "exports:read",
            Self::DeleteExports => "exports:delete",
            Self::ReadDatasets => "datasets:read",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether these allow what `scope` allows.
    #[must_use]
    pub fn allow(self, scope: Scope) -> bool {
        self.contains(scope) || self.contains(Scope::Admin)
    }

    /// The scopes, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_has_a_name_of_its_own() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
            assert_eq!(Scope::ALL.iter().filter(|other| other.name() == scope.name()).count(), 1);
        }
        assert_eq!(Scope::from_name("exports"), None);
        assert_eq!(Scope::from_name("ADMIN"), None);
    }

    #[test]
    fn scopes_allow_what_they_hold_and_admin_everything() {
        let scopes: Scopes = [Scope::ReadExports, Scope::Metrics].into_iter().collect();
        for scope in Scope::ALL {
            assert_eq!(scopes.allow(scope), [Scope::ReadExports, Scope::Metrics].contains(&scope), "{scope}");
            assert!(Scopes::from_iter([Scope::Admin]).allow(scope), "{scope}");
            assert!(!Scopes::default().allow(scope), "{scope}");
        }
        assert_eq!(scopes.iter().collect::<Vec<_>>(), [Scope::ReadExports, Scope::Metrics]);
        assert_eq!(Scopes::all().iter().count(), Scope::ALL.len());
    }
}
