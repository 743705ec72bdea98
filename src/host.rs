//! What a URL's host says of where it leads.

use std::net::IpAddr;

/// Is it this machine? An IPv6 address stands in brackets, as in a URL.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse().map_or(host == "localhost", |address: IpAddr| address.is_loopback())
}
