//! Whether the API server is asked through the proxy that the environment names.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;

use crate::host;

/// Takes the environment's proxy back out of a configuration where the API server is not to be asked through it: where
/// `NO_PROXY` names it (kube 5.0 holds that against the proxy's address instead), and on this machine, as kubectl does.
/// A proxy that the kubeconfig names stays.
pub fn pass_by_proxy(config: &mut Config) {
    if config.proxy_url.is_some()
        && config.proxy_url == of_environment()
        && !is_proxied(&config.cluster_url, &Matcher::from_env())
    {
        config.proxy_url = None;
    }
}

/// The proxy that the environment names, as kube reads it.
fn of_environment() -> Option<Uri> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("HTTPS_PROXY").or_else(|| set("https_proxy"))?.parse().ok()
}

fn is_proxied(server: &Uri, matcher: &Matcher) -> bool {
    !host::is_loopback(server.host().unwrap_or_default()) && matcher.intercept(server).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_held_against_the_api_server_and_this_machine_is_never_asked_through_one() {
        let matcher =
            Matcher::builder().all("http://proxy.example:3128").no("named.example,10.0.0.0/8,10.1.0.1").build();
        for (server, expected) in [
            ("https://cluster.example:6443", true),
            ("https://192.168.1.1", true),
            ("https://named.example:6443", false),
            ("https://10.96.0.1", false),
            ("https://127.0.0.1:6443", false),
            ("https://localhost:6443", false),
            ("https://[::1]:6443", false),
        ] {
            assert_eq!(is_proxied(&server.parse().expect("a URL"), &matcher), expected, "{server}");
        }
    }
}
