//! Where a backend is: the URL that configuration names.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path;
use url::{Host, Url};

/// The longest URL.
const MAX_URL: usize = 2048;
/// The longest name of a bucket (Google's, with dots; S3 and Azure take 63).
const MAX_BUCKET: usize = 222;

/// A place for shares. It never holds a credential: a URL with a user, a password or a query is
/// refused, and no error repeats the URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// A folder: a plain path, or `file:///…`.
    Folder(PathBuf),
    /// `s3://bucket/prefix`: S3, or what speaks like it at another endpoint.
    S3(Bucket),
    /// `gs://bucket/prefix`: Google Cloud Storage.
    Google(Bucket),
    /// `az://container/prefix`: Azure Blob Storage.
    Azure(Bucket),
    /// `https://host/folder`: WebDAV.
    Web(Endpoint),
}

/// A bucket, and the folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    name: String,
    prefix: Path,
}

/// An address that is spoken to over HTTPS, or over HTTP on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why a URL names no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendUrlError {
    /// Nothing, or more than 2048 bytes, or control characters.
    #[error("a backend's URL has 1 to 2048 printable characters")]
    Length,
    /// Not a URL.
    #[error("this is not a URL")]
    Syntax,
    /// A scheme of another kind.
    #[error("the URL must begin with file://, s3://, gs://, az:// or https://, or be a plain path")]
    Scheme,
    /// `http://` to another machine.
    #[error(
        "without TLS anyone on the way would collect shares: use https:// (http:// only reaches this machine)"
    )]
    Plain,
    /// `user:password@`.
    #[error(
        "a URL is logged and shown: take the user and the password out, and name a credentials file instead"
    )]
    Password,
    /// `?…` or `#…`.
    #[error(
        "take out everything from ? or # on: a backend's URL has no query (a token belongs into the credentials file)"
    )]
    Query,
    /// No bucket, or not a bucket's name.
    #[error(
        "the URL must name a bucket of lower-case letters, digits, '.', '-' and '_', as in s3://bucket/folder"
    )]
    Bucket,
    /// A folder that is not one.
    #[error(
        "the folder in the URL has an empty part, '.', '..', a '%' or a blank at a part's edge, or is not one of this machine"
    )]
    Folder,
}

impl BackendUrl {
    /// How the URL begins.
    pub fn scheme(&self) -> &'static str {
        match self {
            BackendUrl::Folder(_) => "file",
            BackendUrl::S3(_) => "s3",
            BackendUrl::Google(_) => "gs",
            BackendUrl::Azure(_) => "az",
            BackendUrl::Web(_) => "https",
        }
    }
}

impl FromStr for BackendUrl {
    type Err = BackendUrlError;

    fn from_str(text: &str) -> Result<BackendUrl, BackendUrlError> {
        sized(text)?;
        if !text.contains("://") {
            return Ok(BackendUrl::Folder(text.into()));
        }
        let url = bare(text)?;
        match url.scheme() {
            "file" => {
                let local = url.host_str().is_none_or(|host| host == "localhost");
                let folder = local.then(|| url.to_file_path().ok()).flatten();
                folder.map(BackendUrl::Folder).ok_or(BackendUrlError::Folder)
            }
            "s3" => bucket(&url, text).map(BackendUrl::S3),
            "gs" => bucket(&url, text).map(BackendUrl::Google),
            "az" => bucket(&url, text).map(BackendUrl::Azure),
            "http" | "https" => endpoint(url).map(BackendUrl::Web),
            _ => Err(BackendUrlError::Scheme),
        }
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendUrl::Folder(folder) => folder.display().fmt(f),
            BackendUrl::S3(bucket) | BackendUrl::Google(bucket) | BackendUrl::Azure(bucket) => {
                write!(f, "{}://{}", self.scheme(), bucket.name)?;
                if bucket.prefix.as_ref().is_empty() { Ok(()) } else { write!(f, "/{}", bucket.prefix) }
            }
            BackendUrl::Web(endpoint) => endpoint.fmt(f),
        }
    }
}

impl Bucket {
    /// The bucket, which Azure calls a container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder in it; empty for all of it.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }
}

impl Endpoint {
    /// Whether this is this machine, without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// The address without a slash at its end.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }
}

impl FromStr for Endpoint {
    type Err = BackendUrlError;

    fn from_str(text: &str) -> Result<Endpoint, BackendUrlError> {
        sized(text)?;
        endpoint(bare(text)?)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn sized(text: &str) -> Result<(), BackendUrlError> {
    let fits = (1..=MAX_URL).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(BackendUrlError::Length) }
}

/// A URL of nothing but a place.
fn bare(text: &str) -> Result<Url, BackendUrlError> {
    let url = Url::parse(text).map_err(|_| BackendUrlError::Syntax)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BackendUrlError::Password);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BackendUrlError::Query);
    }
    Ok(url)
}

fn bucket(url: &Url, text: &str) -> Result<Bucket, BackendUrlError> {
    let name = url.host_str().ok_or(BackendUrlError::Bucket)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let named = (3..=MAX_BUCKET).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(ends)
        && name.ends_with(ends)
        && !name.contains("..");
    if !named || url.port().is_some() {
        return Err(BackendUrlError::Bucket);
    }
    // A parser of URLs resolves steps up; whoever wrote one meant something else.
    // One that decodes escapes would show another URL than it was given.
    let stepped = text.contains('%') || text.split('/').any(|part| part == "." || part == "..");
    let folder = url.path().trim_start_matches('/').trim_end_matches('/');
    let prefix = Path::from_url_path(folder).map_err(|_| BackendUrlError::Folder)?;
    // And blanks at the end of a URL belong to nobody: the same folder would be read as two.
    let frayed = prefix.parts().any(|part| part.as_ref().trim() != part.as_ref());
    if stepped || frayed || prefix.as_ref().chars().any(char::is_control) {
        return Err(BackendUrlError::Folder);
    }
    Ok(Bucket { name: name.to_owned(), prefix })
}

fn endpoint(mut url: Url) -> Result<Endpoint, BackendUrlError> {
    let folder = url.path().trim_end_matches('/').to_owned();
    url.set_path(&folder);
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => Ok(Endpoint(url)),
        ("http", Some(host)) => {
            let here = match host {
                Host::Ipv4(ip) => ip.is_loopback() && ip != Ipv4Addr::UNSPECIFIED,
                Host::Ipv6(ip) => ip.is_loopback(),
                // Only resolvers decide what other names mean.
                Host::Domain(_) => false,
            };
            if here { Ok(Endpoint(url)) } else { Err(BackendUrlError::Plain) }
        }
        _ => Err(BackendUrlError::Scheme),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<BackendUrl, BackendUrlError> {
        text.parse()
    }

    #[test]
    fn every_kind_is_understood_and_shown_as_it_was_written() {
        for url in [
            "../shares/a",
            "/srv/shares",
            "s3://genomes",
            "s3://genomes/shares/2026",
            "gs://genome_archive.example.org/x",
            "az://container/a-b",
            "https://dav.example.org/shares",
            "https://dav.example.org:8443/shares",
            "http://127.0.0.1:9000/shares",
            "http://[::1]:9000",
        ] {
            assert_eq!(parsed(url).unwrap().to_string(), url);
        }
        assert_eq!(parsed("file:///srv/a%20b").unwrap(), BackendUrl::Folder("/srv/a b".into()));
        let BackendUrl::S3(bucket) = parsed("s3://genomes/a/b/").unwrap() else { panic!() };
        assert_eq!((bucket.name(), bucket.prefix().as_ref()), ("genomes", "a/b"));
        assert_eq!(parsed("https://dav.example.org/a//").unwrap().to_string(), "https://dav.example.org/a");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        use BackendUrlError as E;
        for (url, error) in [
            ("", E::Length),
            ("s3://genomes/a\nb", E::Length),
            ("ftp://genomes/a", E::Scheme),
            ("memory:///", E::Scheme),
            ("S3 ://genomes", E::Syntax),
            ("s3://", E::Bucket),
            ("s3:///folder", E::Bucket),
            ("s3://UPPER/x", E::Bucket),
            ("s3://ab/x", E::Bucket),
            ("s3://genomes:9000/x", E::Bucket),
            ("s3://-genomes/x", E::Bucket),
            ("s3://gen..omes/x", E::Bucket),
            ("s3://genomes/a//b", E::Folder),
            ("s3://genomes/a/../b", E::Folder),
            ("s3://genomes/%ff", E::Folder),
            ("s3://genomes/a%20b", E::Folder),
            ("s3://genomes/ /", E::Folder),
            ("s3://genomes/a /b", E::Folder),
            ("s3://key:secret@genomes/x", E::Password),
            ("https://key@dav.example.org/x", E::Password),
            ("az://container/x?sig=abc", E::Query),
            ("https://dav.example.org/#x", E::Query),
            ("http://dav.example.org/x", E::Plain),
            ("http://localhost/x", E::Plain),
            ("http://0.0.0.0/x", E::Plain),
            ("http://127.0.0.1.example.org/x", E::Plain),
            ("file://server/share", E::Folder),
        ] {
            assert_eq!(parsed(url).unwrap_err(), error, "{url}");
        }
        assert_eq!(parsed(&"x".repeat(2049)).unwrap_err(), E::Length);
        assert_eq!("s3://genomes".parse::<Endpoint>().unwrap_err(), E::Scheme);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever is taken is a place, is shown without a secret and is taken again.
        #[test]
        fn what_is_shown_is_understood(url in "(s3|gs|az|https|http|file)://[a-z0-9:@%?#./_ \\\\あ-]{0,12}(/[a-z0-9%./ あ]{0,9}){0,3}") {
            if let Ok(place) = parsed(&url) {
                let shown = place.to_string();
                if !matches!(place, BackendUrl::Folder(_)) {
                    let url = Url::parse(&shown).unwrap();
                    prop_assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
                    prop_assert_eq!(parsed(&shown).unwrap(), place);
                }
            }
        }
    }
}
