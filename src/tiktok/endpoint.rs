//! The address of `TikTok`'s token API, checked once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use reqwest::Url;

use crate::host;

/// An address that secrets may be sent to.
///
/// HTTPS, or plain HTTP to a loopback address; no user name, no password, no query, no fragment. So it holds
/// nothing secret, and [`fmt::Display`] shows it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Checks an address as a person writes it.
    ///
    /// # Errors
    /// Where it is no URL that secrets may be sent to; the error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        // The parser's own error is not shown: what it could not read may hold a password.
        let url = Url::parse(text).map_err(|_| EndpointError::NoUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::UserInfo);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(EndpointError::PlainHttp),
            _ => return Err(EndpointError::Scheme),
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::QueryOrFragment);
        }
        Ok(Self(url))
    }

    /// Host, and port where it is not the scheme's own: what a message may say.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// The address with a query, which must be percent-encoded.
    pub(super) fn with_query(&self, query: &str) -> Url {
        let mut url = self.0.clone();
        url.set_query(Some(query));
        url
    }

    /// The address as the HTTP client takes it.
    pub(super) fn url(&self) -> Url {
        self.0.clone()
    }

    /// Whether a request to it is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether it is on this machine, where a proxy's loopback would be another one.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Where `localhost` leads, whatever a resolver says: the name was taken for a loopback address.
    pub(super) const LOCALHOST: (&'static str, [SocketAddr; 2]) = (
        "localhost",
        [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)],
    );
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Why an address is refused. No variant repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("this is no URL: write one like https://auth.tiktok-shops.com/api/v2/token/refresh")]
    NoUrl,
    /// Neither `https` nor `http`.
    #[error("the URL's scheme is not https: write one that begins with https://")]
    Scheme,
    /// Secrets would cross a network in clear.
    #[error(
        "the URL would send secrets in clear: write https:// (http:// is taken for 127.0.0.0/8, [::1] and localhost alone)"
    )]
    PlainHttp,
    /// A user name or a password in the URL.
    #[error("the URL holds a user name or a password: write it without what stands before the @")]
    UserInfo,
    /// A query or a fragment, which the request's own would replace.
    #[error("the URL holds a query or a fragment: write it without what begins at the ? or #")]
    QueryOrFragment,
}

fn is_loopback(url: &Url) -> bool {
    host::is_loopback(url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_and_plain_loopback_addresses_are_taken() {
        for good in [
            "https://auth.tiktok-shops.com/api/v2/token/refresh",
            "https://10.0.0.1:8443/x",
            "http://127.0.0.1:8080/x",
            "http://127.9.9.9",
            "http://[::1]:8080/x",
            "http://localhost:1/x",
            "http://LOCALHOST",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good} is refused");
        }
    }

    #[test]
    fn what_would_leak_or_confuse_is_refused_with_what_to_write() {
        for (wrong, error) in [
            ("", EndpointError::NoUrl),
            ("auth.tiktok-shops.com", EndpointError::NoUrl),
            ("https://", EndpointError::NoUrl),
            ("ftp://localhost/x", EndpointError::Scheme),
            ("localhost:8080", EndpointError::Scheme),
            ("http://auth.tiktok-shops.com/x", EndpointError::PlainHttp),
            ("http://localhost.example.com/x", EndpointError::PlainHttp),
            ("http://localhost./x", EndpointError::PlainHttp),
            ("http://127.0.0.1.example.com/x", EndpointError::PlainHttp),
            ("http://0.0.0.0/x", EndpointError::PlainHttp),
            ("http://[::ffff:127.0.0.1]/x", EndpointError::PlainHttp),
            ("https://user@host/x", EndpointError::UserInfo),
            ("https://:hunter2@host/x", EndpointError::UserInfo),
            ("http://user:hunter2@example.com/?q", EndpointError::UserInfo),
            ("https://host/x?", EndpointError::QueryOrFragment),
            ("https://host/x?a=b", EndpointError::QueryOrFragment),
            ("https://host/x#a", EndpointError::QueryOrFragment),
        ] {
            let found = Endpoint::parse(wrong).expect_err(wrong);
            assert_eq!(found, error, "{wrong}");
            let text = found.to_string();
            assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
        }
    }
}
