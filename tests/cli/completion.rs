//! Completion, as shells and kubectl ask for it.

use std::path::Path;
use std::process::Stdio;

use crate::stage::{PROGRAM, Stage, run};

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
    // Bash is the one that is surely here: it completes by its script.
    let stage = Stage::new().await;
    stage.shop("shop-1", "7", 500_000).await;
    let script = format!(
        "source <(kubectl-tiktokshop completion bash)\n\
         try() {{ COMP_WORDS=(kubectl-tiktokshop \"$@\"); COMP_CWORD=$#; _kubectl_tiktokshop; echo \"${{COMPREPLY[@]}}\"; }}\n\
         try refresh --dr; try refresh -n {} ''; try completion ''; try nonsense ''\n",
        stage.namespace
    );
    let built = Path::new(PROGRAM).parent().expect("it lies in a folder");
    let output = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", built.display()))
        .env("KUBECONFIG", &stage.kubeconfig)
        .output()
        .await
        .expect("bash starts");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(shown, "--dry-run\nshop-1\nbash zsh fish\nrefresh status completion\n", "{output:?}");
}
