//! Who clients are: API keys and the page's sessions. Secrets are made, and compared, by the callers; only hashes come here.

mod api_keys;
mod sessions;

pub use api_keys::{ApiKey, NewApiKey, Rotated, SecretHash, StoredApiKey};
