//! What a person may lack: one clear line each, with what to do.

use std::path::Path;
use std::process::Command;

use tiktok_shop_testkit::{
    control_plane::{ControlPlane, Options},
    ports::free_port,
    process::{closed_output, full_output, run_into},
};

use crate::stage::{PROGRAM, Ran, Stage, person, run};

async fn refused(kubeconfig: &Path, line: &str, code: i32, expected: &str) {
    let args: Vec<&str> = line.split(' ').collect();
    let ran: Ran = run(kubeconfig, &args, &[]).await;
    let expected = format!("kubectl-tiktokshop: {expected}\n");
    assert_eq!((ran.stderr.as_str(), ran.stdout.as_str(), ran.code), (expected.as_str(), "", Some(code)), "{line}");
}

/// A kubeconfig of a server on a port of this machine.
fn kubeconfig_of(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    )
}

/// Covers: cli/no-such-integration
#[tokio::test]
async fn a_name_that_is_not_there_is_answered_with_what_is_near() {
    let stage = Stage::new().await;
    stage.shop("shop-1", "1", 500_000).await;
    stage.shop("store", "1", 500_000).await;
    let ns = &stage.namespace;
    for command in ["refresh", "status"] {
        refused(
            &stage.kubeconfig,
            &format!("{command} shop1 -n {ns}"),
            1,
            &format!("there is no integration shop1 in namespace {ns}; did you mean shop-1?"),
        )
        .await;
    }
    refused(
        &stage.kubeconfig,
        &format!("refresh zzz shop-1 -n {ns} --lang vi"),
        1,
        &format!("không có integration zzz trong namespace {ns}"),
    )
    .await;
    assert_eq!(stage.request_of("shop-1").await, None, "nothing is asked for where a name is wrong");
    // Of whom may list everywhere, the namespace is suggested that was forgotten.
    refused(
        &stage.plane.admin_kubeconfig(),
        &format!("status {} -n default", "shop-of-another-namespace"),
        1,
        "there is no integration shop-of-another-namespace in namespace default",
    )
    .await;
    let ran = run(&stage.plane.admin_kubeconfig(), &["status", "store", "-n", "default"], &[]).await;
    assert!(ran.stderr.contains(&format!("store -n {ns}")), "{ran:#?}");
    let ran = stage.run("refresh --team-id 7").await;
    assert_eq!(
        (ran.stderr.as_str(), ran.code),
        (&*format!("kubectl-tiktokshop: no integration in namespace {ns} fits\n"), Some(0))
    );
    assert!(ran.stdout.ends_with("Found 0 integration(s)\n"), "{ran:#?}");
}

/// Covers: cli/forbidden
#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 3_600).await;
    let ns = &stage.namespace;
    let ask = |verb: &str, place: &str| {
        format!(
            "you may not {verb} tiktokshopintegrations in {place}: ask for that right (a Role with the verb {verb} on \
             tiktokshopintegrations.tiktokshop.dev)"
        )
    };
    // A Role would not give that.
    let everywhere = "you may not list tiktokshopintegrations in all namespaces: name one with -n, or ask for that right \
                      (a ClusterRole with the verb list on tiktokshopintegrations.tiktokshop.dev, bound by a \
                      ClusterRoleBinding)";
    refused(&stage.kubeconfig, "status -A", 1, everywhere).await;
    refused(&stage.kubeconfig, "refresh -n default", 1, &ask("list", "namespace default")).await;
    let here = format!("namespace {ns}");
    let reader = person(stage.plane, ns, "reader", "get, list, watch").await;
    let reader = stage.plane.kubeconfig_for(&reader, None);
    let ran = run(&reader, &["refresh", "-n", ns], &[]).await;
    let line = ask("patch", &here);
    assert!(
        ran.stdout.contains(&format!("{ns}/shop (team 1): failed - the request could not be written: {line}\n")),
        "{ran:#?}"
    );
    assert_eq!((ran.stderr, ran.code), (format!("kubectl-tiktokshop: {line}\n"), Some(1)));
    let unwatching = person(stage.plane, ns, "unwatching", "get, list, patch").await;
    let unwatching = stage.plane.kubeconfig_for(&unwatching, None);
    let ran = run(&unwatching, &["refresh", "-n", ns], &[]).await;
    assert_eq!((ran.stderr, ran.code), (format!("kubectl-tiktokshop: {}\n", ask("watch", &here)), Some(1)));
    let stranger = stage.plane.kubeconfig_for("no-such-token", None);
    refused(
        &stranger,
        "status",
        1,
        "the API server does not know you: log in anew, or correct the user in your kubeconfig",
    )
    .await;
}

/// Covers: cli/not-installed
#[tokio::test]
async fn a_cluster_without_the_crd_is_told_with_how_to_install_it() {
    let plane = ControlPlane::start(Options::default()).await;
    refused(
        &plane.admin_kubeconfig(),
        "refresh",
        1,
        "the API server does not serve TikTokShopIntegration: install the CRD (tiktok-shop-operator crd | kubectl apply \
         --server-side -f -), or choose another cluster with --context",
    )
    .await;
}

/// Covers: cli/unreachable, cli/kubeconfig, cli/context
#[tokio::test]
async fn a_cluster_that_can_not_be_found_or_reached_is_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let none = folder.path().join("none");
    let absent = format!(
        "the kubeconfig {} can't be read (No such file or directory): correct that, or name another with --kubeconfig",
        none.display()
    );
    refused(&none, "status", 1, &absent).await;
    let home = folder.path().to_str().expect("a path of ours");
    let ran = run(Path::new(""), &["status"], &[("HOME", home)]).await;
    let expected = "kubectl-tiktokshop: there is no kubeconfig: name one with --kubeconfig or KUBECONFIG\n";
    assert_eq!((ran.stderr.as_str(), ran.code), (expected, Some(1)));
    let port = free_port();
    let away = folder.path().join("away");
    std::fs::write(&away, kubeconfig_of(port)).expect("a file can be written");
    for line in ["refresh", "status", "status --watch"] {
        let args: Vec<&str> = line.split(' ').collect();
        let ran = run(&away, &args, &[]).await;
        let expected = format!(
            "kubectl-tiktokshop: the cluster at http://127.0.0.1:{port} can't be reached (Connection refused): check the \
             network (VPN, proxy) and the server in your kubeconfig, or choose another cluster with --context\n"
        );
        assert_eq!((ran.stderr.as_str(), ran.code), (expected.as_str(), Some(1)), "{line}");
    }
    let expected = "the kubeconfig has no context nowhere: choose one that it has with --context (c)";
    refused(&away, "status --context nowhere", 1, expected).await;
    let expected = "the kubeconfig /no/such/file can't be read (No such file or directory): correct that, or name another \
                    with --kubeconfig";
    refused(&away, "status --kubeconfig /no/such/file", 1, expected).await;
    let contextless = folder.path().join("contextless");
    std::fs::write(&contextless, kubeconfig_of(port).replace("current-context: c\n", ""))
        .expect("a file can be written");
    let expected = "the kubeconfig has no current context: choose one with --context (c)";
    refused(&contextless, "status", 1, expected).await;
    let userless = folder.path().join("userless");
    std::fs::write(&userless, kubeconfig_of(port).replace("{name: u,", "{name: v,")).expect("a file can be written");
    let expected =
        "the kubeconfig has no user u, which its context names: correct that, or choose another context with --context";
    refused(&userless, "status", 1, expected).await;
    std::fs::write(&none, "no: [kubeconfig").expect("a file can be written");
    let named = none.to_str().expect("a path of ours");
    let ran = run(&away, &["status", "--kubeconfig", named], &[]).await;
    assert!(ran.stderr.starts_with("kubectl-tiktokshop: the kubeconfig can't be used ("), "{ran:#?}");
    assert!(ran.stderr.ends_with("): correct it, or name another with --kubeconfig\n"), "{ran:#?}");
    assert_eq!((ran.stderr.lines().count(), ran.code), (1, Some(1)));
}

/// Several kubeconfigs in `KUBECONFIG` are one, of which a context is chosen; or one is named.
///
/// Covers: cli/kubeconfig, cli/context
#[tokio::test]
async fn the_cluster_is_the_one_that_context_and_kubeconfig_name() {
    let stage = Stage::new().await;
    stage.shop("shop", "1", 500_000).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let away = folder.path().join("away");
    std::fs::write(&away, kubeconfig_of(free_port())).expect("a file can be written");
    let here = stage.kubeconfig.display();
    let both = format!("{}:{here}", away.display());
    let ns = stage.namespace.as_str();
    let ran = run(Path::new(&both), &["status", "--context", "test", "-n", ns], &[]).await;
    assert!(ran.code == Some(0) && ran.stdout.contains("shop"), "{ran:#?}");
    let ran = run(Path::new(&both), &["status", "-n", ns], &[]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("can't be reached"), "the current context is another: {ran:#?}");
    for with_absent in [format!("/no/such/file:{here}"), format!("{here}:/no/such/file")] {
        let ran = run(Path::new(&with_absent), &["status", "-n", ns], &[]).await;
        assert!(ran.code == Some(0) && ran.stdout.contains("shop"), "as kubectl has it: {ran:#?}");
    }
    let proxy = format!("http://127.0.0.1:{}", free_port());
    let ran = run(&stage.kubeconfig, &["status", "-n", ns], &[("HTTPS_PROXY", &proxy)]).await;
    assert!(ran.code == Some(0) && ran.stdout.contains("shop"), "this machine is not asked through a proxy: {ran:#?}");
    let ran = run(&away, &["status", "--kubeconfig", &here.to_string(), "-n", ns], &[]).await;
    assert!(ran.code == Some(0) && ran.stdout.contains("shop"), "{ran:#?}");
}

/// Covers: cli/exit-2
#[tokio::test]
async fn wrong_usage_is_told_in_one_line_with_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let none = folder.path().join("none");
    for (line, expected) in [
        ("refresh -A -n shops", "the argument '--namespace <NS>' cannot be used with '--all-namespaces'"),
        (
            "refresh --timeout soon",
            "invalid value 'soon' for '--timeout <DURATION>': write a duration from 1s to 24h, such as 2m",
        ),
        ("renew", "there is no command renew"),
    ] {
        refused(&none, line, 2, &format!("{expected}; see kubectl tiktokshop --help")).await;
    }
    for (line, expected) in
        [("--lang vi renew", "không có lệnh renew"), ("refresh --lang=vi --nonsense", "không có tham số '--nonsense'")]
    {
        refused(&none, line, 2, &format!("{expected}; xem kubectl tiktokshop --help")).await;
    }
    let stage = Stage::new().await;
    let ran = stage.run("status -l a=(").await;
    assert!(ran.stderr.starts_with("kubectl-tiktokshop: the API server refuses the selection: "), "{ran:#?}");
    assert_eq!((ran.stderr.lines().count(), ran.code), (1, Some(2)), "{ran:#?}");
    for args in [&["--help"][..], &["refresh", "--help"], &["status", "--help"]] {
        let ran = run(&none, args, &[]).await;
        assert!(ran.stdout.contains("Usage: kubectl tiktokshop") && ran.stdout.contains("Examples:"), "{ran:#?}");
        assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
    }
}

/// Where nobody reads any more, as after `head`, nothing is said; what can't be written is.
#[test]
fn an_output_that_can_not_be_written_is_told_unless_it_was_closed() {
    for (output, expected) in [
        (full_output(), "kubectl-tiktokshop: failed to write to standard output: No space left on device\n"),
        (closed_output(), ""),
    ] {
        let ran = run_into(Command::new(PROGRAM).arg("--help"), output);
        assert_eq!((String::from_utf8_lossy(&ran.stderr).as_ref(), ran.status.code()), (expected, Some(1)));
    }
}
