//! A shop, a simulated TikTok behind TLS, and the image's program in what a pod has.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tempfile::TempDir;
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    fixtures::{self, SecretFixture, app_secret, integration},
    operator::{Builder, Operator},
    rbac::{self, Identity, Scope},
    simulator::{NewShop, Simulator},
};
use tokio::sync::OnceCell;

use crate::archive::Archive;
use crate::dns::Dns;
use crate::tls::{Authority, Front};

/// For what takes a few requests.
const SOON: Duration = Duration::from_mins(1);
/// What a pod finds in its environment, here a name rather than an address.
const API_SERVER: &str = "kubernetes.default.svc";
/// The host of the token endpoint.
pub const TIKTOK: &str = "tiktok.test";
/// What a pod gets from its service account.
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
const SHOP: &str = "shop-1";
const TOKENS: &str = "shop-1-tokens";
const HOUR: i64 = 3_600;

/// Where names are to be found.
#[derive(Clone, Copy)]
pub enum Names<'a> {
    /// In DNS alone.
    Dns(&'a Dns),
    /// In /etc/hosts, with a name server at hand that need not be asked.
    Hosts(&'a Dns),
}

/// One namespace with one shop whose token is due.
pub struct Stage {
    pub authority: Authority,
    plane: &'static ControlPlane,
    client: Client,
    namespace: String,
    identity: Identity,
    simulator: Simulator,
    front: Front,
}

impl Stage {
    pub async fn new() -> Self {
        static CRD: OnceCell<()> = OnceCell::const_new();
        let plane = ControlPlane::shared().await;
        CRD.get_or_init(async || {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/tiktokshopintegrations.tiktokshop.dev.yaml");
            let crd = fs::read_to_string(path).expect("the CRD is in the tree");
            fixtures::install_crd(plane, &crd).await;
        })
        .await;
        let client = plane.kube_client().await;
        let namespace = plane.create_namespace("image").await;
        let identity = rbac::install(plane, &namespace, &Scope::Namespaces(vec![namespace.clone()])).await;
        let examples = Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator")).with_file_name("examples");
        let simulator = Simulator::start(&examples.join("tiktok-shop-simulator")).await;
        let app = simulator.create_any_app().await;
        app_secret(&namespace, "app", &app.app_key, &app.app_secret).create(&client).await;
        let shop = simulator.create_shop(&NewShop::of(&app).id(SHOP).access_remaining(2 * HOUR)).await;
        SecretFixture::new(&namespace, TOKENS)
            .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
            .create(&client)
            .await;
        integration(&namespace, SHOP, TOKENS, "app").create(&client).await;
        let authority = Authority::new();
        let front = authority.front(TIKTOK, simulator.address()).await;
        Self { authority, plane, client, namespace, identity, simulator, front }
    }

    /// What the image's program has around it: its service account, its names, a journal that it may write to.
    pub fn pod(&self, names: Names<'_>) -> Pod {
        let image = Archive::unpack();
        let dir = tempfile::Builder::new().prefix("pod-").tempdir().expect("a temporary folder can be made");
        let mut pod = Pod { image, dir, mounts: String::new(), args: Vec::new() };
        let namespace = &self.namespace;
        let (hosts, dns) = match names {
            Names::Dns(dns) => (String::new(), dns),
            Names::Hosts(dns) => (format!("127.0.0.1 {API_SERVER} {TIKTOK}\n"), dns),
        };
        pod.mount("etc/hosts", &format!("127.0.0.1 localhost\n{hosts}"));
        pod.mount(
            "etc/resolv.conf",
            &format!(
                "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
                 nameserver {}\noptions ndots:5\n",
                dns.address()
            ),
        );
        for (file, text) in
            [("token", self.identity.token.as_str()), ("ca.crt", &self.plane.ca_pem()), ("namespace", namespace)]
        {
            pod.mount(&format!("{ACCOUNT}/{file}"), text);
        }
        let journal = pod.dir.path().join("journal");
        fs::create_dir(&journal).expect("a folder can be made");
        std::os::unix::fs::chown(&journal, Some(pod.user().0), Some(pod.user().1)).expect("root may give it away");
        let there = pod.image.root().join("journal");
        fs::create_dir(there).expect("a folder can be made");
        pod.mount_path(&journal, "journal");
        pod
    }

    fn start(&self, pod: &Pod) -> Operator {
        let port = self.plane.url().rsplit_once(':').map(|(_, port)| port.to_owned()).expect("the URL has a port");
        let operator = pod
            .builder()
            .namespace(&self.namespace)
            .journal_dir("/journal")
            .token_endpoint(&format!("https://{TIKTOK}:{}/api/v2/token/refresh", self.front.port))
            .env("KUBERNETES_SERVICE_HOST", API_SERVER)
            .env("KUBERNETES_SERVICE_PORT", port);
        operator.start()
    }

    /// The operator refreshes the shop's token, in what a pod has, and ends in order.
    pub async fn refreshes(&self, pod: Pod) {
        let operator = self.start(&pod);
        operator.wait_ready(SOON).await;
        pod.assert_confined(operator.process().pid());
        self.simulator.wait_for_refreshes(SHOP, 1, SOON).await;
        let refreshed = |status: &Value| fixtures::has_condition(status, "Refreshed", "True", "Refreshed");
        self.status("the refresh", refreshed).await;
        let stored = fixtures::secret_values(&self.client, &self.namespace, TOKENS).await;
        assert_eq!(stored["access_token"], self.simulator.shop(SHOP).await.access_token());
        assert_eq!(operator.sigterm(SOON).await.code(), Some(0), "{}", operator.logs());
        self.simulator.assert_no_violations().await;
    }

    /// The operator fails to, lives, and says why: `lastError.message`.
    pub async fn fails(&self, pod: Pod) -> String {
        let operator = self.start(&pod);
        operator.wait_ready(SOON).await;
        let status = self.status("a failure", |status| !status["lastError"].is_null()).await;
        let error = &status["lastError"];
        assert_eq!(error["reason"], "NetworkError", "{error:#}");
        assert_eq!(operator.sigterm(SOON).await.code(), Some(0), "{}", operator.logs());
        error["message"].as_str().expect("an error has a message").to_owned()
    }

    async fn status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        fixtures::wait_for_status(&self.client, &self.namespace, SHOP, what, wanted, SOON).await
    }
}

/// An unpacked image with what is mounted into it.
pub struct Pod {
    image: Archive,
    dir: TempDir,
    /// A line for each: from where, to where.
    mounts: String,
    args: Vec<String>,
}

impl Pod {
    /// A file of this text stands at `path`, over what the image has there.
    pub fn mount(&mut self, path: &str, text: &str) {
        let from = self.dir.path().join(path.replace('/', "_"));
        fs::write(&from, text).expect("a file can be written");
        let point = self.image.root().join(path);
        if !point.exists() {
            fs::create_dir_all(point.parent().expect("it is below the root")).expect("a folder can be made");
            fs::write(point, "").expect("a file can be written");
        }
        self.mount_path(&from, path);
    }

    fn mount_path(&mut self, from: &Path, to: &str) {
        writeln!(self.mounts, "{} {to}", from.display()).expect("writing to a String does not fail");
    }

    /// `--ca-file`, with this authority.
    pub fn trust(&mut self, authority: &Authority) {
        self.mount("etc/tiktok/ca.pem", &authority.pem());
        self.args.push("--ca-file=/etc/tiktok/ca.pem".to_owned());
    }

    /// User and group that the image names.
    fn user(&self) -> (u32, u32) {
        let user = self.image.config()["config"]["User"].as_str().expect("the image names a user");
        let (user, group) = user.split_once(':').expect("the image names a user and a group");
        (user.parse().expect("a number"), group.parse().expect("a number"))
    }

    fn builder(&self) -> Builder {
        let (user, group) = self.user();
        let program = self.image.config()["config"]["Entrypoint"][0].as_str().expect("the image names a program");
        let write =
            |name: &str, text: &str| fs::write(self.dir.path().join(name), text).expect("a file can be written");
        write("mounts", &self.mounts);
        write("user", &format!("{user}:{group}"));
        write("program", program);
        let root = self.dir.path().join("rootfs");
        if !root.exists() {
            std::os::unix::fs::symlink(self.image.root(), root).expect("a link can be made");
        }
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/image/run.sh");
        let builder = Operator::builder(script).env("POD", self.dir.path());
        self.args.iter().fold(builder, Builder::arg)
    }

    /// The process is the image's user, in each of its guises, and its root can't be written to.
    fn assert_confined(&self, pid: u32) {
        let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
        let status = of("status");
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5) has it").trim();
        let (user, group) = self.user();
        assert_eq!(line("Uid:"), [user; 4].map(|id| id.to_string()).join("\t"));
        assert_eq!(line("Gid:"), [group; 4].map(|id| id.to_string()).join("\t"));
        assert_eq!(line("Groups:"), "");
        assert_eq!(line("CapEff:"), "0000000000000000");
        // proc(5): the fifth field is where it is mounted, as the process sees it; the sixth is how.
        let mounts = of("mountinfo");
        let how = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.get(4) == Some(&"/")).then(|| fields[5].to_owned())
        });
        let how = how.expect("the process has a root");
        assert!(how.split(',').any(|option| option == "ro"), "the root is mounted {how}");
    }
}
