//! The image: what is in it, and that what is in it works: the program out of the image, as the user that the image
//! names, on a read-only root with nothing else, against the real API server and by names that are resolved.
//!
//! Ignored unless asked for, since an image must be built first: `make image-test` does both. `IMAGE` names another
//! OCI archive. Linux and root are needed: the root file system is made read-only in a mount namespace of its own.

mod archive;
mod dns;
mod stage;
mod tls;

use std::collections::BTreeSet;

use serde_json::Value;

use archive::Archive;
use dns::Dns;
use stage::{Names, Stage, TIKTOK};

/// The bundle of roots, where the TLS library looks for it.
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// The promise of the README.
const MOST_MIB: u64 = 20;

#[test]
#[ignore = "needs an image: make image-test"]
fn the_image_is_one_program_its_roots_and_its_papers_and_small() {
    let image = Archive::unpack();
    assert_eq!(
        image.files(),
        BTreeSet::from([
            "etc/nsswitch.conf",
            ROOTS,
            "licenses/LICENSE",
            "licenses/THIRD-PARTY.txt",
            "sbom/tiktok-shop-operator.cdx.json",
            "tiktok-shop-operator",
        ])
        .into_iter()
        .map(str::to_owned)
        .collect(),
        "nothing else belongs into the image, and none of it may be missing"
    );
    let mib = image.compressed_bytes().div_ceil(1024 * 1024);
    assert!(mib <= MOST_MIB, "the image is {mib} MiB compressed, more than {MOST_MIB}");

    let config = &image.config()["config"];
    assert_eq!(config["User"], "65532:65532", "the image must not run as root: {config:#}");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/tiktok-shop-operator"]));
    assert_eq!(config["Cmd"], serde_json::json!(["run"]));
    let labels = &config["Labels"];
    for (label, value) in
        [("title", "tiktok-shop-operator"), ("licenses", "Apache-2.0"), ("version", env!("CARGO_PKG_VERSION"))]
    {
        assert_eq!(labels[format!("org.opencontainers.image.{label}")], value, "{labels:#}");
    }
    for label in ["description", "source", "url", "revision"] {
        let value = labels[format!("org.opencontainers.image.{label}")].as_str().unwrap_or_default();
        assert!(!value.is_empty(), "the label {label} is missing: {labels:#}");
    }
}

#[test]
#[ignore = "needs an image: make image-test"]
fn the_image_lists_its_components_and_their_licences() {
    let image = Archive::unpack();
    let sbom: Value =
        serde_json::from_str(&image.read("sbom/tiktok-shop-operator.cdx.json")).expect("the list is JSON");
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    let components = sbom["components"].as_array().expect("it has components");
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    let papers = image.read("licenses/THIRD-PARTY.txt");
    for name in ["kube-client", "reqwest", "rustls", "aws-lc-sys", "tokio"] {
        let component = named(name).unwrap_or_else(|| panic!("{name} is not in the list of components"));
        let version = component["version"].as_str().expect("it has a version");
        assert!(component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/")), "{component:#}");
        assert!(papers.contains(&format!("\n{name} {version} (")), "no licence of {name} {version} is in the image");
    }
    assert!(named("tiktok-shop-testkit").is_none(), "what only tests use is in the list of components");
    for name in ["Rust's standard library", "glibc", "libgcc", "Mozilla's CA certificates"] {
        assert!(papers.contains(&format!("\n{name}")), "no licence of {name} is in the image");
    }
}

#[tokio::test]
#[ignore = "needs an image: make image-test"]
async fn a_token_is_refreshed_by_names_from_dns_as_a_pod_finds_them() {
    let dns = Dns::start(&["kubernetes.default.svc.cluster.local", TIKTOK]).await;
    let stage = Stage::new().await;
    let mut pod = stage.pod(Names::Dns(&dns));
    pod.trust(&stage.authority);
    stage.refreshes(pod).await;
    for name in ["kubernetes.default.svc.cluster.local", TIKTOK] {
        assert!(dns.asked().contains(name), "{name} was not asked for: {:?}", dns.asked());
    }
    assert!(
        dns.asked().contains(&format!("{TIKTOK}.svc.cluster.local")),
        "the search list of a pod was not gone through: {:?}",
        dns.asked()
    );
}

#[tokio::test]
#[ignore = "needs an image: make image-test"]
async fn a_token_is_refreshed_by_names_from_the_hosts_file_which_dns_need_not_know() {
    let dns = Dns::start(&[]).await;
    let stage = Stage::new().await;
    let mut pod = stage.pod(Names::Hosts(&dns));
    pod.trust(&stage.authority);
    stage.refreshes(pod).await;
    assert!(dns.asked().is_empty(), "a name in /etc/hosts was asked of DNS: {:?}", dns.asked());
}

#[tokio::test]
#[ignore = "needs an image: make image-test"]
async fn a_name_that_nobody_knows_fails_as_such_and_the_operator_lives() {
    let dns = Dns::start(&["kubernetes.default.svc.cluster.local"]).await;
    let stage = Stage::new().await;
    let pod = stage.pod(Names::Dns(&dns));
    let message = stage.fails(pod).await;
    assert!(
        message.contains(TIKTOK) && message.contains("Name or service not known"),
        "it does not say what is wrong: {message}"
    );
}

#[tokio::test]
#[ignore = "needs an image: make image-test"]
async fn the_roots_in_the_image_are_those_that_a_server_is_judged_by() {
    let dns = Dns::start(&["kubernetes.default.svc.cluster.local", TIKTOK]).await;

    // With the image's own: they are loaded, and do not know the test's authority.
    let stage = Stage::new().await;
    let message = stage.fails(stage.pod(Names::Dns(&dns))).await;
    assert!(message.contains("certificate"), "it does not say that the certificate is the trouble: {message}");

    // With the test's authority in their place, and no --ca-file: so it is that very file that counts.
    let stage = Stage::new().await;
    let mut pod = stage.pod(Names::Dns(&dns));
    pod.mount(ROOTS, &stage.authority.pem());
    stage.refreshes(pod).await;

    // And the image's own are those of the public web.
    let image = Archive::unpack();
    let roots = tls::certificates(&image.read(ROOTS));
    assert!(roots.len() > 100, "the image has {} roots only", roots.len());
    for name in ["DigiCert Global Root G2", "GlobalSign Root CA", "ISRG Root X1", "Amazon Root CA 1"] {
        let known = |root: &Vec<u8>| root.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(roots.iter().any(known), "{name} is not among the roots of the image");
    }
}
