//! A certificate authority of the test's own, and TLS in front of a plain server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// For the keys of authority and server.
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// Whoever trusts it trusts the servers it stands for. Made by openssl, which Debian's ca-certificates brings along.
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let this =
            Self { dir: tempfile::Builder::new().prefix("tls-").tempdir().expect("a temporary folder can be made") };
        this.openssl(&[
            "req",
            "-x509",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=authority of a test",
        ]);
        this
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl").args(args).args(NEW_KEY).current_dir(self.dir.path()).output();
        let output = output.unwrap_or_else(|error| panic!("failed to start openssl, which must be installed: {error}"));
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        std::fs::read_to_string(self.path("ca.pem")).expect("openssl has written it")
    }

    /// Speaks TLS under `name` on a free port of 127.0.0.1, and passes on what comes to `server`.
    pub async fn front(&self, name: &str, server: SocketAddr) -> Front {
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
        self.openssl(&[
            "req",
            "-x509",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-keyout",
            "server.key",
            "-out",
            "server.pem",
            "-days",
            "1",
            "-subj",
            &subject,
            "-addext",
            &names,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        let certificate = CertificateDer::from_pem_file(self.path("server.pem")).expect("openssl has written it");
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).expect("openssl has written it");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key))
            .expect("the certificate fits its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let task = tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that trusts no such certificate goes away here.
                    let mut outside = acceptor.accept(outside).await?;
                    let mut inside = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Front { port, task: task.abort_handle() }
    }
}

/// A running front; takes no more connections when dropped.
pub struct Front {
    pub port: u16,
    task: AbortHandle,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The certificates of a PEM bundle, as DER.
pub fn certificates(bundle: &str) -> Vec<Vec<u8>> {
    let parts = bundle.split("-----BEGIN CERTIFICATE-----").skip(1);
    let base64 = parts.filter_map(|part| part.split("-----END CERTIFICATE-----").next());
    base64.map(|text| STANDARD.decode(text.split_whitespace().collect::<String>()).expect("PEM is base64")).collect()
}
