//! Completion, as shells and kubectl ask for it.

use std::path::Path;
use std::process::Stdio;

use tiktok_shop_testkit::poll;

use crate::stage::{PROGRAM, Pty, SOON, Stage, run};

/// Covers: cli/completion
#[tokio::test]
async fn names_flags_and_values_are_completed_in_the_form_that_kubectl_takes() {
    let stage = Stage::new().await;
    stage.shop("shop-1", "7", 500_000).await;
    stage.shop("shop-2", "8", 500_000).await;
    let ns = stage.namespace.as_str();
    for (words, expected) in [
        (&["refresh", "-n", ns, ""][..], "shop-1\tteam 7\nshop-2\tteam 8\n:4\n"),
        (&["refresh", "-n", ns, "shop-1", ""], "shop-2\tteam 8\n:4\n"),
        (&["status", "--namespace", ns, "x"], ":4\n"),
        (&["refresh", "-n", ns, "--team-id", ""], "7\n8\n:4\n"),
        (&["refresh", "-o", ""], "text\tFor people\njson\tOne JSON document\n:4\n"),
        (&["refresh", "--lang", "v"], "vi\tTiếng Việt\n:4\n"),
        (&["refresh", "--kubeconfig", ""], ":0\n"),
        // Values alone, as cobra has it: kubectl's scripts put the flag before them.
        (&["refresh", "--lang="], "en\tEnglish\nvi\tTiếng Việt\n:4\n"),
        (&["refresh", "--kubeconfig=x"], ":0\n"),
        (&["-n", ns, "refresh", "shop-1", ""], "shop-2\tteam 8\n:4\n"),
        (&["--namespace", "status", "st"], "status\tShow how the tokens are, soonest expiry first\n:4\n"),
        (&["refresh", "--dry"], "--dry-run\tChange nothing, say what would happen\n:4\n"),
        (&["st"], "status\tShow how the tokens are, soonest expiry first\n:4\n"),
        (&["completion", "z"], "zsh\tZ shell\n:4\n"),
    ] {
        let args: Vec<&str> = std::iter::once("__complete").chain(words.iter().copied()).collect();
        let ran = run(&stage.kubeconfig, &args, &[]).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code), (expected, "", Some(0)), "{words:?}");
    }
}

/// kubectl finds the plugin and its completion on the PATH and asks them itself.
///
/// Covers: cli/completion
#[tokio::test]
async fn kubectl_runs_the_plugin_and_completes_for_it() {
    let stage = Stage::new().await;
    stage.shop("shop-1", "7", 500_000).await;
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let built = Path::new(PROGRAM).parent().expect("it lies in a folder");
    let path = format!("{}:{}:/usr/bin:/bin", plugins.display(), built.display());
    let kubectl = async |args: &[&str]| {
        let output = tokio::process::Command::new(stage.plane.assets().join("kubectl"))
            .args(args)
            .env_clear()
            .env("PATH", &path)
            .env("KUBECONFIG", &stage.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("kubectl starts");
        String::from_utf8(output.stdout).expect("kubectl prints UTF-8")
    };
    let ns = stage.namespace.as_str();
    let shown = kubectl(&["tiktokshop", "status", "-n", ns]).await;
    assert!(shown.contains("shop-1"), "{shown}");
    let completed = kubectl(&["__complete", "tiktokshop", "refresh", "-n", ns, "sh"]).await;
    assert_eq!(completed, "shop-1\tteam 7\n:4\n");
}

/// Covers: cli/completion
#[tokio::test]
async fn each_shell_gets_a_script_that_asks_the_program() {
    for (shell, start) in [("bash", "# Completion"), ("zsh", "#compdef kubectl-tiktokshop\n"), ("fish", "# Completion")]
    {
        let ran = run(Path::new("/none"), &["completion", shell], &[]).await;
        assert!(ran.stdout.starts_with(start) && ran.stdout.contains("kubectl-tiktokshop __complete"), "{ran:#?}");
        assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
    }
}

/// A text without what steers the terminal.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // Up to the letter that ends it.
                Some('[') => _ = chars.by_ref().find(|c| ('@'..='~').contains(c)),
                // A title, up to the bell.
                Some(']') => _ = chars.by_ref().find(|c| *c == '\u{7}'),
                Some('(') => _ = chars.next(),
                _ => {}
            },
            c if c.is_control() && c != '\n' => {}
            c => plain.push(c),
        }
    }
    plain
}

/// A shell at its prompt, which is `> `, with the script read.
async fn shell(stage: &Stage, folder: &Path, shell: &str, args: &[&str], start: &str) -> Option<Pty> {
    if std::process::Command::new(shell).args(["-c", ":"]).status().is_err() {
        println!("{shell} is not installed: its completion is not tried");
        return None;
    }
    let built = Path::new(PROGRAM).parent().expect("it lies in a folder");
    // A shell wants the terminal for itself.
    let mut command = std::process::Command::new("setsid");
    command
        .args(["--ctty", "--wait", shell])
        .args(args)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", built.display()))
        .env("KUBECONFIG", &stage.kubeconfig)
        .env("HOME", folder)
        .env("TERM", "xterm")
        .current_dir(folder);
    let mut pty = Pty::start(command, (200, 40));
    pty.type_in(&format!("{start}; echo it is rea\"\"dy\r"));
    pty.wait_for("it is ready", SOON).await;
    let is_there = async || plain(&pty.text()).trim_end().ends_with('>').then_some(());
    assert!(poll::until(SOON, is_there).await.is_some(), "there is no prompt: {:?}", pty.text());
    Some(pty)
}

/// Bash is surely here; of zsh and fish, only who has them finds out.
///
/// Covers: cli/completion
#[tokio::test]
async fn in_the_shells_themselves_the_tab_key_completes_commands_flags_values_names_and_files() {
    let stage = Stage::new().await;
    stage.shop("shop-1", "7", 500_000).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("the-only-file"), "").expect("a file can be written");
    let ns = &stage.namespace;
    for (name, args, start) in [
        ("bash", &["--norc", "--noprofile", "-i"][..], "PS1='> '; source <(kubectl-tiktokshop completion bash)"),
        (
            "zsh",
            &["-f", "-i"],
            "PS1='> '; autoload -U compinit; compinit -u -D; source <(kubectl-tiktokshop completion zsh)",
        ),
        (
            "fish",
            &["--no-config", "-i"],
            "function fish_prompt; echo -n '> '; end; kubectl-tiktokshop completion fish | source",
        ),
    ] {
        let Some(mut pty) = shell(&stage, folder.path(), name, args, start).await else {
            assert_ne!(name, "bash");
            continue;
        };
        for (typed, expected) in [
            ("refresh --dr".to_owned(), "refresh --dry-run"),
            ("stat".to_owned(), "tiktokshop status"),
            (format!("refresh -n {ns} sh"), "shop-1"),
            (format!("-n {ns} status sh"), "status shop-1"),
            ("status --lang=v".to_owned(), "--lang=vi"),
            ("refresh --lang v".to_owned(), "--lang vi"),
            ("status --kubeconfig the-o".to_owned(), "--kubeconfig the-only-file"),
            ("status --kubeconfig=the-o".to_owned(), "--kubeconfig=the-only-file"),
        ] {
            // Each on a line of its own, which is taken back.
            let since = pty.text().len();
            pty.type_in(&format!("kubectl-tiktokshop {typed}\t"));
            let is_there = async || plain(&pty.text()[since..]).contains(expected).then_some(());
            let shown = poll::until(SOON, is_there).await;
            assert!(shown.is_some(), "{name}: {typed}<tab> gives {:?}", &pty.text()[since..]);
            pty.type_in("\u{15}");
        }
        pty.type_in("exit\r");
        pty.end(SOON).await;
    }
}
