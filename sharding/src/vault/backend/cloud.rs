//! The clients of storage services, all over one [`Transport`].
//!
//! The vault's time limits rule: whatever a client still tries is dropped when they are up. Within
//! them it tries twice more, for a connection that was closed while idle is no fault.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::access::{Access, AzureKey, Key, WebKey};
use super::address::{BackendUrl, Bucket};
use super::transport::Transport;
use super::{AccessError, BackendError};

/// S3-compatible services have no regions, and yet one must be signed.
const ANY_REGION: &str = "us-east-1";

pub(super) fn open(
    url: &BackendUrl,
    access: &Access,
    key: &Key,
) -> Result<Arc<dyn ObjectStore>, BackendError> {
    let scheme = url.scheme();
    let failed = |source| BackendError::Store { scheme, source };
    let plain = match url {
        BackendUrl::Web(endpoint) => endpoint.is_plain(),
        _ => access.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_plain()),
    };
    let transport = Transport::new(access.ca.as_deref(), plain)?;
    let endpoint = access.endpoint.as_ref().map(|endpoint| endpoint.as_str());
    match (url, key) {
        (BackendUrl::S3(bucket), Key::S3 { id, secret, token }) => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(bucket.name())
                .with_region(access.region.as_deref().unwrap_or(ANY_REGION))
                .with_access_key_id(id.reveal())
                .with_secret_access_key(secret.reveal())
                .with_allow_http(plain)
                .with_retry(retries())
                .with_http_connector(transport);
            if let Some(token) = token {
                builder = builder.with_token(token.reveal());
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            builder.build().map(|store| within(store, bucket)).map_err(failed)
        }
        (BackendUrl::Google(bucket), Key::Google { service_account }) => {
            let mut builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(bucket.name())
                .with_service_account_key(service_account.reveal())
                .with_retry(retries())
                .with_http_connector(transport);
            if let Some(endpoint) = endpoint {
                builder = builder.with_base_url(endpoint);
            }
            builder.build().map(|store| within(store, bucket)).map_err(failed)
        }
        (BackendUrl::Azure(bucket), Key::Azure(key)) => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_container_name(bucket.name())
                .with_account(access.account.as_deref().unwrap_or_default())
                .with_allow_http(plain)
                .with_retry(retries())
                .with_http_connector(transport);
            builder = match key {
                AzureKey::Account(key) => builder.with_access_key(key.reveal()),
                AzureKey::Signature(sas) => builder.with_config(AzureConfigKey::SasKey, sas.reveal()),
            };
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.to_owned());
            }
            builder.build().map(|store| within(store, bucket)).map_err(failed)
        }
        (BackendUrl::Web(endpoint), Key::Web(key)) => {
            let transport = match key {
                WebKey::None => transport,
                WebKey::Bearer(token) => transport.bearing(token)?,
                WebKey::Basic { username, password } => transport.with_user(username, password)?,
            };
            let builder = HttpBuilder::new()
                .with_url(format!("{endpoint}/"))
                .with_retry(retries())
                .with_http_connector(transport);
            builder.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(failed)
        }
        // `Access::key` makes the key of the URL's kind.
        (BackendUrl::Folder(_) | BackendUrl::S3(_), _) => Err(needed(scheme).into()),
        (BackendUrl::Google(_) | BackendUrl::Azure(_) | BackendUrl::Web(_), _) => Err(needed(scheme).into()),
    }
}

fn needed(scheme: &'static str) -> AccessError {
    AccessError::Needed { option: "credentials", scheme }
}

fn within(store: impl ObjectStore, bucket: &Bucket) -> Arc<dyn ObjectStore> {
    if bucket.prefix().as_ref().is_empty() {
        return Arc::new(store);
    }
    Arc::new(PrefixStore::new(store, bucket.prefix().clone()))
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(400),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    }
}
