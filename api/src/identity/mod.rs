//! Who a client is and what it may do: the credentials of a request, the identity that they stand for, and the scopes that each
//! route needs. `authentication` is the layer around the routes that uses this; handlers take the [`Caller`].

mod access;
mod api_key;
mod caller;
mod cookie;
mod credentials;
mod jwt;
mod lookup;
mod mode;
mod verified;

pub(crate) use access::Access;
pub(crate) use api_key::{GeneratedKey, PresentedKey, hash, new_secret};
pub(crate) use caller::{Caller, Identity, Origin, Principal};
pub(crate) use cookie::{COOKIE, COOKIE_WITH_TLS, session_token};
pub(crate) use jwt::{JwtConfig, Verifier, fuzz_target};
pub(crate) use lookup::Authenticator;
pub use mode::AuthMode;
