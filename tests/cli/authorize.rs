//! `authorize`: from the seller's yes to a living token, and what may come between.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    control_plane::service_account_user,
    fixtures::{self, Field, SecretFixture, integration},
    leak::LeakScan,
    poll,
    ports::free_port,
    proxy::Seen,
    simulator::{Action, Endpoint, Fault, NewShop},
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};

use crate::stage::{PROGRAM, Pty, Ran, SOON, Stage, person, run};

const HOUR: i64 = 3_600;

/// Somebody who may write Secrets, and read none.
async fn authorizer(stage: &Stage, name: &str, verbs: &str, secret_verbs: &[&str]) -> PathBuf {
    let token = person(stage.plane, &stage.namespace, name, verbs).await;
    let metadata = json!({"name": format!("{name}-secrets"), "namespace": stage.namespace});
    let rbac = "rbac.authorization.k8s.io/v1";
    for manifest in [
        json!({"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "verbs": secret_verbs},
        ]}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("{name}-secrets")},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": stage.namespace}]}),
    ] {
        fixtures::create(&stage.client, &manifest).await;
    }
    stage.plane.kubeconfig_for(&token, Some(&stage.proxy.url()))
}

/// A stage whose person may do what the command needs, and an integration whose app has a service id.
async fn stage() -> Stage {
    let mut stage = Stage::new().await;
    stage.kubeconfig = authorizer(&stage, "lan", "get, list, watch", &["create", "patch"]).await;
    stage
}

async fn shop(stage: &Stage, name: &str) {
    stage.simulator.create_shop(&NewShop::of(&stage.app).id(name)).await;
    let spec = integration(&stage.namespace, name, name, "app").team("7");
    spec.field("authorization", json!({"serviceId": "7172839405"})).create(&stage.client).await;
}

async fn code_in(stage: &Stage, secret: &str, key: &str) -> Option<String> {
    fixtures::secret(&stage.client, &stage.namespace, secret).await?;
    fixtures::secret_values(&stage.client, &stage.namespace, secret).await.remove(key)
}

fn state_in(page: &str) -> String {
    let state = page.split("&state=").nth(1).unwrap_or_else(|| panic!("{page} has no state"));
    state.chars().take_while(char::is_ascii_hexdigit).collect()
}

fn line_of(stage: &Stage, name: &str, expires_at: i64) -> String {
    let expires = chrono::DateTime::from_timestamp(expires_at, 0).expect("a time").format("%Y-%m-%d %H:%M:%S UTC");
    let ns = &stage.namespace;
    format!("✅ {ns}/{name} (team 7): authorized by Simulated shop {name} (GB) - expires {expires}\n")
}

/// The program as it runs, with a pipe for its input.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    fn start(stage: &Stage, line: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = tokio::process::Command::new(PROGRAM)
            .args(stage.args(line))
            .env_clear()
            .env("KUBECONFIG", &stage.kubeconfig)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, out }
    }

    /// The page's address, which is the first line.
    async fn page(&mut self) -> String {
        let mut page = String::new();
        let read = tokio::time::timeout(SOON, self.out.read_line(&mut page)).await;
        read.expect("it shows a page").expect("it prints UTF-8");
        page.trim_end().to_owned()
    }

    /// Writes its input, all that it gets, and waits for its end.
    async fn end(mut self, input: &str) -> Ran {
        let mut stdin = self.child.stdin.take().expect("it is piped");
        // It may have ended already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        self.wait().await
    }

    /// Waits for its end, its input still open.
    async fn wait(mut self) -> Ran {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut err = self.child.stderr.take().expect("it is piped");
        let read = async {
            let both = tokio::join!(self.out.read_to_string(&mut stdout), err.read_to_string(&mut stderr));
            both.0.and(both.1).expect("it prints UTF-8");
            self.child.wait().await.expect("it is ours")
        };
        let status = tokio::time::timeout(SOON * 2, read).await.expect("it ends");
        Ran { code: status.code(), stdout, stderr }
    }
}

/// What is pasted is not shown, and goes nowhere but into the Secret; of Secrets nothing is read.
///
/// Covers: cli/authorize
#[tokio::test]
async fn from_nothing_a_pasted_redirect_makes_a_living_token_and_shows_neither_code_nor_secret() {
    let stage = stage().await;
    shop(&stage, "shop").await;
    let operator = stage.operator().start();
    stage.wait_reason("shop", "TokenSecretNotFound").await;
    let code = stage.simulator.authorize("shop").await;
    let mut pty = Pty::run(&stage, "authorize shop", &[("TERM", "xterm"), ("NO_COLOR", "1")]);
    pty.wait_for("press Enter (it is not shown)", SOON).await;
    let page = "https://services.tiktokshop.com/open/authorize?service_id=7172839405&state=";
    assert!(pty.text().contains(page), "{}", pty.text());
    let nonce = state_in(&pty.text());
    assert_eq!(nonce.len(), 32, "the state can't be guessed");
    // A slip first, and the redirect of another page.
    pty.type_in("https://app.example/cb?locale=vi&state=\n");
    pty.wait_for("its state is another", SOON).await;
    pty.type_in(&format!("https://app.example/cb?state={nonce}\n"));
    pty.wait_for("there is no authorization code in it", SOON).await;
    pty.type_in(&format!("https://app.example/cb?app_key=k&code={code}&state={nonce}\n"));
    let (ended, text) = pty.end(SOON).await;
    assert_eq!(ended, Some(0), "{text}");
    let issued = stage.simulator.shop("shop").await;
    assert!(text.contains(line_of(&stage, "shop", issued.access_expires_at()).trim_end()), "{text}");
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
    assert_eq!((values["access_token"].as_str(), values.get("auth_code")), (issued.access_token(), None));
    stage.simulator.assert_no_violations().await;

    let scan = LeakScan::new().secret("the code", &code).secret("the access token", issued.access_token());
    scan.assert_clean([("the terminal", text.as_str()), ("the operator's log", &operator.logs())]);
    assert!(!text.contains("app.example"), "what is pasted is not shown: {text}");
    let counts = stage.plane.request_counts(&service_account_user(&stage.namespace, "lan"));
    let (secrets, reviews) = (|what: &&String| what.contains("secrets"), |what: &&String| what.contains("reviews"));
    let of_secrets: Vec<_> = counts.keys().filter(secrets).collect();
    assert_eq!(of_secrets, ["create secrets", "patch secrets"], "no Secret is read");
    let others: Vec<_> = counts.keys().filter(|what| !secrets(what) && !reviews(what)).collect();
    let expected = ["get", "list", "watch"].map(|verb| format!("{verb} tiktokshopintegrations"));
    // Where the first list shows the new tokens already, nothing is left to watch for.
    assert!(
        others == expected.iter().collect::<Vec<_>>() || others == expected[..2].iter().collect::<Vec<_>>(),
        "{others:?}"
    );
    // The answer to a write would hold the tokens that stand there, were it asked for whole.
    let writes = stage.proxy.requests().into_iter().filter(|seen| seen.path.contains("/secrets"));
    for seen in writes {
        assert!(seen.accept.contains("as=PartialObjectMetadata"), "{} {}: {}", seen.method, seen.path, seen.accept);
    }
}

/// After a revocation, in Vietnamese, for a shop in the United States whose Secret has keys of its own.
///
/// Covers: cli/authorize.redirect-url, cli/authorize.region, cli/authorize.service-id, cli/authorize.lang
#[tokio::test]
async fn a_script_gets_the_page_alone_and_gives_the_redirect_on_standard_input() {
    let stage = stage().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("shop").access_remaining(HOUR)).await;
    SecretFixture::new(&stage.namespace, "shop-tokens")
        .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
        .value("other", "stays")
        .create(&stage.client)
        .await;
    let spec = integration(&stage.namespace, "shop", "shop-tokens", "app").token_keys(&[(Field::AuthCode, "code")]);
    spec.field("authorization", json!({"serviceId": "7172839405", "region": "us"})).create(&stage.client).await;
    stage.simulator.deauthorize("shop").await;
    let _operator = stage.operator().start();
    stage.wait_reason("shop", "RefreshTokenRejected").await;
    let code = stage.simulator.authorize("shop").await;
    let variables = [("LANG", "vi_VN.UTF-8"), ("TZ", "Asia/Ho_Chi_Minh")];
    let mut running = Running::start(&stage, "authorize shop --redirect-url -", &variables);
    let page = running.page().await;
    let start = "https://services.us.tiktokshop.com/open/authorize?service_id=7172839405&state=";
    assert!(page.starts_with(start), "{page}");
    let ran = running.end(&format!("\nhttps://app.example/cb?code={code}&state={}\n", state_in(&page))).await;
    let zone = chrono::FixedOffset::east_opt(7 * 3_600).expect("an offset");
    let expires = stage.simulator.shop("shop").await.access_expires_at();
    let expires = chrono::DateTime::from_timestamp(expires, 0).expect("a time").with_timezone(&zone);
    let expected = format!(
        "✅ Integration {}/shop: Đã được Simulated shop shop (GB) cấp quyền - Hết hạn: {}\n",
        stage.namespace,
        expires.format("%d/%m/%Y %H:%M:%S")
    );
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), (expected.as_str(), "", Some(0)));
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop-tokens").await;
    assert_eq!((values["other"].as_str(), values.get("code")), ("stays", None));

    // Flags go before the spec; a redirect of another state is refused, on the command line none was given out.
    let line = "authorize shop --redirect-url - --service-id 99 --region global";
    let mut running = Running::start(&stage, line, &[]);
    let page = running.page().await;
    assert!(page.starts_with("https://services.tiktokshop.com/open/authorize?service_id=99&state="), "{page}");
    let code = stage.simulator.authorize("shop").await;
    let redirect = format!("https://app.example/cb?code={code}&state=0123");
    let ran = running.end(&format!("{redirect}\n")).await;
    let expected = "kubectl-tiktokshop: it does not come from the page that was shown just now (its state is another): open \
                    that page, and take the address it leads to\n";
    assert_eq!((ran.stderr.as_str(), ran.code), (expected, Some(1)));
    assert_eq!(code_in(&stage, "shop-tokens", "code").await, None, "nothing was written");
    let ran = stage.run(&format!("authorize shop --redirect-url {redirect}")).await;
    assert!(ran.code == Some(0) && ran.stdout.starts_with("✅ ") && ran.stdout.lines().count() == 1, "{ran:#?}");
    // The code alone.
    let code = stage.simulator.authorize("shop").await;
    let ran = Running::start(&stage, "authorize shop --redirect-url -", &[]).end(&code).await;
    assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
    stage.simulator.assert_no_violations().await;
}

async fn get(port: u16, target: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// Covers: cli/authorize.callback, cli/authorize.open
#[tokio::test]
async fn the_redirect_of_a_browser_is_caught_and_nothing_else_is_taken_for_it() {
    let stage = stage().await;
    shop(&stage, "shop").await;
    let _operator = stage.operator().start();
    let code = stage.simulator.authorize("shop").await;
    // A browser that writes down what it shall open.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let browser = folder.path().join("xdg-open");
    let script = format!("#!/bin/sh\nprintf %s \"$1\" > {}/opened\n", folder.path().display());
    std::fs::write(&browser, script).expect("a file can be written");
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let port = free_port();
    let line = format!("authorize shop --callback 127.0.0.1:{port} --open");
    let mut running = Running::start(&stage, &line, &[("PATH", &path)]);
    let page = running.page().await;
    let opened = poll::until(SOON, async || std::fs::read_to_string(folder.path().join("opened")).ok()).await;
    assert_eq!(opened, Some(page.clone()), "the browser opens the page that is shown");
    let nonce = state_in(&page);
    // One that says nothing is in nobody's way.
    let silent = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    for (target, status) in [
        ("/favicon.ico".to_owned(), "404 Not Found"),
        (format!("/?code={code}&state=0123"), "400 Bad Request"),
        (format!("/?code={code}"), "400 Bad Request"),
        ("/?error=auth_denied&state=0123".to_owned(), "400 Bad Request"),
        (format!("/?state={nonce}"), "404 Not Found"),
        (format!("/cb?locale=vi&code={code}&state={nonce}"), "200 OK"),
    ] {
        let answer = get(port, &target).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{target}: {answer}");
        assert!(answer.contains("\r\nCache-Control: no-store\r\n") && !answer.contains(&code), "{answer}");
    }
    let ran = running.end("").await;
    drop(silent);
    let expires = stage.simulator.shop("shop").await.access_expires_at();
    assert_eq!((ran.stdout, ran.code), (line_of(&stage, "shop", expires), Some(0)), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("waiting for the redirect to http://127.0.0.1:{port}\n")), "{}", ran.stderr);
    let refused = "kubectl-tiktokshop: a redirect came that does not belong to this page, and was refused";
    assert_eq!(ran.stderr.matches(refused).count(), 3, "{}", ran.stderr);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it listens no longer than it waits");

    // The seller says no; and a port that is taken.
    let mut running = Running::start(&stage, &format!("authorize shop --callback 127.0.0.1:{port}"), &[]);
    let nonce = state_in(&running.page().await);
    let second = stage.run(&format!("authorize shop --callback 127.0.0.1:{port}")).await;
    let expected = format!(
        "kubectl-tiktokshop: can't listen on 127.0.0.1:{port} (Address already in use): choose another port, one that the \
         app's redirect URL leads to\n"
    );
    assert_eq!((second.stdout.as_str(), second.stderr, second.code), ("", expected, Some(1)));
    let answer = get(port, &format!("/?error=auth_denied&state={nonce}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("was not authorized"), "{answer}");
    let ran = running.end("").await;
    let denied = "kubectl-tiktokshop: the seller did not authorize the app (auth_denied), and nothing was written: run it \
                  again once they agree\n";
    assert!(ran.stderr.ends_with(denied) && ran.code == Some(1), "{ran:#?}");
    // Without a browser, the person is asked to open it.
    let mut running = Running::start(&stage, "authorize shop --open", &[("PATH", "/nonexistent")]);
    running.page().await;
    let ran = running.end("").await;
    assert!(ran.stderr.contains("standard input ended before there was an address"), "{ran:#?}");
}

/// Covers: cli/authorize, cli/authorize.timeout
#[tokio::test]
async fn what_comes_of_the_code_is_told_with_what_to_do() {
    let stage = stage().await;
    shop(&stage, "shop").await;
    let ns = &stage.namespace;
    let authorize = async |line: &str, redirect: &str| {
        stage.run(format!("authorize shop --redirect-url {redirect} {line}").trim_end()).await
    };
    // Without an operator.
    let code = stage.simulator.authorize("shop").await;
    let ran = authorize("--timeout 2s", &code).await;
    let expected = "kubectl-tiktokshop: the code is in the Secret and had no answer within 2 s from the operator, and it \
                    never wrote a status there. See that it runs, that it leads, and that its --namespace and \
                    --watch-label-selector do not leave the integration out; a code lives about 30 minutes\n";
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), ("", expected, Some(1)));
    assert_eq!(code_in(&stage, "shop", "auth_code").await.as_deref(), Some(code.as_str()));
    // Nor does anybody know of a Secret that takes no code.
    integration(ns, "locked", "locked-tokens", "app").create(&stage.client).await;
    SecretFixture::new(ns, "locked-tokens").value("other", "x").immutable().create(&stage.client).await;
    let ran = stage.run("authorize locked --redirect-url ROW_of_nobody").await;
    let start = "kubectl-tiktokshop: the code can't be written into the Secret locked-tokens (";
    assert!(ran.stderr.starts_with(start) && ran.stderr.contains("immutable"), "{ran:#?}");
    assert!(ran.code == Some(1) && !ran.stderr.contains("ROW_of_nobody"), "{ran:#?}");
    let _operator = stage.operator().start();
    stage.wait_reason("shop", "TokenValid").await;
    // A code that TikTok refuses.
    let expired = stage.simulator.authorize_for("shop", -5).await;
    let ran = authorize("", &expired).await;
    let expected = format!(
        "kubectl-tiktokshop: no tokens: TikTok Shop refused the authorization code. What to do: kubectl tiktokshop authorize \
         shop -n {ns}\n"
    );
    assert_eq!((ran.stderr, ran.code), (expected, Some(1)));
    // One that failed and is tried again.
    let fault = Fault::once(Action::code_saying(12_345, "try later")).shop("shop").endpoint(Endpoint::Exchange);
    stage.simulator.add_fault(fault).await;
    let code = stage.simulator.authorize("shop").await;
    let ran = authorize("--timeout 60s", &code).await;
    let again = "kubectl-tiktokshop: not yet: TikTok Shop answered with an error (";
    assert!(ran.stderr.starts_with(again) && ran.stderr.ends_with("The operator tries again\n"), "{ran:#?}");
    assert!(ran.stdout.starts_with("✅ ") && ran.code == Some(0), "{ran:#?}");
    // That code again, which is spent, and the one that was refused: whichever of the two it is, no seller helps.
    let used = format!(
        "kubectl-tiktokshop: the operator does not present this code: it was used or refused before. Have the seller authorize \
         the app again, for a new one: kubectl tiktokshop authorize shop -n {ns}\n"
    );
    for spent in [&code, &code, &expired, &expired] {
        let ran = authorize("--timeout 60s", spent).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), ("", used.as_str(), Some(1)));
    }
    let code = stage.simulator.authorize("shop").await;
    assert_eq!(authorize("--timeout 60s", &code).await.code, Some(0), "a new one is presented");
    let witness = stage.simulator.witness().await;
    assert!(witness.code_violations.is_empty(), "{:#?}", witness.code_violations);
    // What the operator can't get past is told before any seller is asked.
    integration(ns, "appless", "appless", "no-app").create(&stage.client).await;
    stage.wait_reason("appless", "AppCredentialsNotFound").await;
    let ran = stage.run("authorize appless --service-id 7").await;
    let start = "kubectl-tiktokshop: no tokens: the app credentials were not found (";
    let todo = "What to do: create the app's Secret, or correct spec.appCredentialsSecretRef\n";
    assert!(ran.stderr.starts_with(start) && ran.stderr.ends_with(todo), "{ran:#?}");
    assert_eq!((ran.stdout.as_str(), ran.code), ("", Some(1)));
    // What is suspended is not exchanged, so no seller is asked.
    fixtures::patch_integration(&stage.client, ns, "shop", &json!({"spec": {"suspend": true}})).await;
    let ran = authorize("", "ROW_x").await;
    let expected = format!(
        "kubectl-tiktokshop: shop is suspended, so that no code is exchanged: resume it first (kubectl patch ttsi shop -n \
         {ns} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}')\n"
    );
    assert_eq!((ran.stderr, ran.code), (expected, Some(1)));
}

/// Covers: cli/forbidden, cli/no-such-integration, cli/exit-2
#[tokio::test]
async fn what_is_missing_is_told_before_the_seller_is_asked() {
    let stage = stage().await;
    shop(&stage, "shop").await;
    let ns = stage.namespace.as_str();
    let unknown = integration(ns, "unknown", "unknown", "app");
    unknown.create(&stage.client).await;
    let ask = |verb: &str, resource: &str, full: &str| {
        format!(
            "kubectl-tiktokshop: you may not {verb} {resource} in namespace {ns}: ask for that right (a Role with the verb \
             {verb} on {full})\n"
        )
    };
    let integrations = ("tiktokshopintegrations", "tiktokshopintegrations.tiktokshop.dev");
    for (name, verbs, secret_verbs, verb, (resource, full)) in [
        ("patcher", "get, list, watch", &["patch"][..], "create", ("secrets", "secrets")),
        ("creator", "get, list, watch", &["create"], "patch", ("secrets", "secrets")),
        ("glancer", "get, list", &["create", "patch"], "watch", integrations),
        ("lister", "list, watch", &["create", "patch"], "get", integrations),
        ("getter", "get, watch", &["create", "patch"], "list", integrations),
    ] {
        let kubeconfig = authorizer(&stage, name, verbs, secret_verbs).await;
        let ran = run(&kubeconfig, &["authorize", "shop", "-n", ns], &[]).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr, ran.code), ("", ask(verb, resource, full), Some(1)), "{name}");
    }
    let ran = stage.run("authorize shopp").await;
    let expected = format!("kubectl-tiktokshop: there is no integration shopp in namespace {ns}; did you mean shop?\n");
    assert_eq!((ran.stderr, ran.code), (expected, Some(1)));
    let ran = stage.run("authorize unknown").await;
    let expected = "kubectl-tiktokshop: the service id of the app is not known: give it with --service-id, or write it into \
                    spec.authorization.serviceId (Partner Center shows it)\n";
    assert_eq!((ran.stderr.as_str(), ran.code), (expected, Some(1)));
    let ran = run(Path::new("/none"), &["authorize", "shop", "--callback", "0.0.0.0:80"], &[]).await;
    assert!(ran.stderr.contains("write a loopback address and a port") && ran.code == Some(2), "{ran:#?}");
    // A Secret that is there needs no right to create one.
    SecretFixture::new(ns, "shop").value("other", "x").create(&stage.client).await;
    let _operator = stage.operator().start();
    let seen = |status: &Value| status["observedTokenSecret"]["uid"].is_string();
    fixtures::wait_for_status(&stage.client, ns, "shop", "its Secret seen", seen, SOON).await;
    let code = stage.simulator.authorize("shop").await;
    let patcher = stage.plane.kubeconfig_for(&stage.plane.service_account_token(ns, "patcher").await, None);
    let ran = run(&patcher, &["authorize", "shop", "-n", ns, "--redirect-url", &code], &[]).await;
    assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)), "{ran:#?}");
    // Where no page can be shown, a script's redirect is one of a page that it showed itself.
    let code = stage.simulator.authorize("shop").await;
    let running = Running::start(&stage, "authorize unknown --redirect-url -", &[]);
    let ran = running.end(&format!("https://app.example/cb?code={code}&state=of-the-script\n")).await;
    assert!(ran.stdout.starts_with("✅ ") && ran.stdout.lines().count() == 1, "{ran:#?}");
    assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
}

/// By Ctrl-C, or by its timeout.
///
/// Covers: cli/exit-130, cli/authorize.timeout
#[tokio::test]
async fn stopped_it_says_whether_the_code_is_written_and_gives_the_terminal_back() {
    let stage = stage().await;
    shop(&stage, "shop").await;
    let pty = Pty::run(&stage, "authorize shop", &[("TERM", "xterm")]);
    pty.wait_for("press Enter (it is not shown)", SOON).await;
    assert!(!pty.echoes(), "what is pasted would be shown");
    pty.interrupt();
    pty.wait_for("stopped; nothing was written", SOON).await;
    assert!(pty.echoes(), "the terminal shows again what is typed");
    assert_eq!(pty.end(SOON).await.0, Some(130));
    assert!(stage.proxy.requests().iter().all(|seen| !seen.path.contains("/secrets")), "no Secret was written");

    let pty = Pty::run(&stage, "authorize shop --redirect-url ROW_of_nobody", &[("TERM", "xterm")]);
    stage.proxy.wait_for_request(|seen| seen.is_watch() && seen.path.contains("tiktokshop"), SOON).await;
    let written = |seen: &Seen| seen.method == "POST" && seen.path.contains("/secrets") && seen.status == Some(201);
    stage.proxy.wait_for_request(written, SOON).await;
    pty.wait_for("waiting for the operator", SOON).await;
    pty.interrupt();
    pty.wait_for("stopped waiting; the code is in the Secret", SOON).await;
    assert_eq!(pty.end(SOON).await.0, Some(130));
    let mut running = Running::start(&stage, "authorize shop --timeout 1s", &[]);
    let stdin = running.child.stdin.take();
    let ran = running.wait().await;
    drop(stdin);
    let expected = "kubectl-tiktokshop: nobody answered within 1 s, and nothing was written: run it again, with a longer \
                    --timeout where the seller needs one\n";
    assert!(ran.stderr.ends_with(expected) && ran.code == Some(1), "{ran:#?}");
}
