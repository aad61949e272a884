//! The clients of the AWS SDK: credentials, endpoints, retries and timeouts.

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
};
use aws_smithy_http_client::tls;
use polyglot_runtime::reloadable::Reloadable;

use crate::config::StorageConfig;
use crate::object_store::ObjectBody;

/// Retries of a call after transient errors.
pub(super) fn standard_retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(4).with_max_backoff(Duration::from_secs(5))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit of one attempt of a call, for calls without a limit of their own.
const ATTEMPT_TIMEOUT: Duration = Duration::from_mins(1);
/// A store may work for minutes on a Complete of many parts.
pub(super) const COMPLETE_TIMEOUT: Duration = Duration::from_mins(10);
/// A connection that is slower than this is treated as broken.
const MIN_BYTES_PER_SECOND: u64 = 256 << 10;

/// The client for the service's own calls, and the one that signs URLs of the endpoint that clients can reach.
pub(super) struct Clients {
    pub(super) service: Client,
    pub(super) public: Client,
}

impl Clients {
    /// Clients from `config` and, where it leaves something out, from the AWS chain (environment, profile, web identity,
    /// container, instance). Nothing is connected yet.
    pub(super) async fn new(config: &StorageConfig, retries: RetryConfig) -> Self {
        let http = https_client(config.authorities.as_deref());
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        } else if config.endpoint.is_some() {
            // A self-hosted store takes any region; asking the instance metadata for one would cost seconds.
            loader = loader.region(Region::new("us-east-1"));
        }
        if let Some(pair) = &config.static_credentials {
            // Without the SDK's cache, which would go on with a pair that has been replaced for a quarter of an hour.
            loader =
                loader.credentials_provider(FileCredentials(pair.clone())).identity_cache(IdentityCache::no_cache());
        }
        let shared = loader.load().await;
        let client = |endpoint: Option<&String>| {
            let mut builder = Builder::from(&shared)
                // Parts carry a checksum of our own; the SDK's default would wrap bodies in chunks with
                // trailers, which not every store understands.
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
                .retry_config(retries.clone())
                .timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(CONNECT_TIMEOUT)
                        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                        .build(),
                );
            if let Some(endpoint) = endpoint {
                builder = builder.endpoint_url(endpoint).force_path_style(true);
            }
            Client::from_conf(builder.build())
        };
        Self {
            service: client(config.endpoint.as_ref()),
            public: client(config.public_endpoint.as_ref().or(config.endpoint.as_ref())),
        }
    }
}

/// The key pair from files, as it was last read.
#[derive(Debug)]
struct FileCredentials(Reloadable<(String, String)>);

impl ProvideCredentials for FileCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let (id, secret) = (*self.0.get()).clone();
        future::ProvideCredentials::ready(Ok(Credentials::new(id, secret, None, None, "file")))
    }
}

/// A client that trusts the authorities of the system and these, which are valid PEM.
fn https_client(authorities: Option<&str>) -> SharedHttpClient {
    let mut trusted = tls::TrustStore::default();
    if let Some(authorities) = authorities {
        trusted.add_pem_certificate(authorities);
    }
    let context = tls::TlsContext::builder().with_trust_store(trusted).build();
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(context.expect("a trust store is all that it takes"))
        .build_https()
}

/// Overrides the time that each attempt of a call may take.
pub(super) fn attempt_timeout(limit: Duration) -> Builder {
    Builder::new().timeout_config(TimeoutConfig::builder().operation_attempt_timeout(limit).build())
}

/// Overrides the time that each attempt at sending `body` may take.
pub(super) fn body_timeout(body: &ObjectBody) -> Builder {
    attempt_timeout(ATTEMPT_TIMEOUT.max(Duration::from_secs(body.size() / MIN_BYTES_PER_SECOND)))
}
