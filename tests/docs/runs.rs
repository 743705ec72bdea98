//! Everything that can be run in the documentation is run.

use futures::StreamExt as _;

use crate::markdown::{self, Begins, Block, Page};
use crate::matching::compare;
use crate::stage::{Ran, Stage};

/// Pages at the same time, each with a control plane of its own.
const AT_ONCE: usize = 3;

/// Commands that only look: they are repeated until they print what the page shows, as a reader would.
const LOOKS: [&str; 5] =
    ["kubectl get", "kubectl describe", "kubectl tiktokshop status", "kubectl auth", "kubectl events"];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_documentation_runs_and_prints_what_is_shown() {
    // What is written in Vietnamese has the same blocks: a test of `pages` sees to it.
    let pages = markdown::all().into_iter().filter(|page| {
        let vietnamese = page.path.to_string_lossy().contains(".vi.") || page.path.starts_with("docs/src/vi");
        !vietnamese && page.blocks.iter().any(Block::is_run)
    });
    let runs = pages.map(|page| async move { follow(&page).await.err() });
    let ended: Vec<Option<String>> = futures::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
    let faults: Vec<String> = ended.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} page(s) do not work as they are printed:\n\n{}", faults.len(), faults.join("\n\n"));
}

/// Does what a page says, from its top.
async fn follow(page: &Page) -> Result<(), String> {
    let stage = match page.begins() {
        Begins::AtWork => Stage::with_a_shop().await,
        Begins::Nothing => Stage::empty().await,
        Begins::Release => Stage::with_a_release().await,
    };
    if page.blocks.iter().any(|block| block.is_run() && block.text.contains("helm ")) {
        stage.with_helm().await;
    }
    for block in &page.blocks {
        let place = format!("{}:{}", page.path.display(), block.line);
        let done = match block.mark("file") {
            Some(name) => {
                stage.write(name, &block.text);
                Ok(())
            }
            None if block.is_run() => run(&stage, block).await,
            None => continue,
        };
        done.map_err(|why| format!("{place}: {why}"))?;
        stage.settle().await;
    }
    Ok(())
}

async fn run(stage: &Stage, block: &Block) -> Result<(), String> {
    if block.language == "sh" {
        // Who waits for a Deployment waits for what makes pods of it.
        let ran = if block.text.contains("kubectl rollout status") {
            tokio::select! {
                ran = stage.run(&block.text) => ran,
                never = stage.keep_settling() => match never {},
            }
        } else {
            stage.run(&block.text).await
        };
        return if ran.ok { Ok(()) } else { Err(format!("{}fails:\n{}", block.text, ran.output)) };
    }
    for (command, shown) in commands(&block.text) {
        let wanted = |ran: &Ran| {
            if ran.ok == block.has("fails") {
                return Err(format!("{command}\nends {}:\n{}", if ran.ok { "well" } else { "badly" }, ran.output));
            }
            compare(&shown, &ran.output).map_err(|why| format!("{command}\n{why}"))
        };
        if LOOKS.iter().any(|look| command.starts_with(look)) {
            stage.run_until(&command, wanted).await?;
        } else {
            wanted(&stage.run(&command).await)?;
        }
    }
    Ok(())
}

/// The commands of a console, each with what it prints.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), String::new()));
            goes_on = command.ends_with('\\');
        } else if let Some((command, output)) = commands.last_mut() {
            let part = if goes_on { command } else { output };
            part.push('\n');
            part.push_str(line);
            goes_on = goes_on && line.ends_with('\\');
        }
    }
    commands
}

#[test]
fn a_console_is_parted_into_commands_and_what_they_print() {
    let part = commands("$ one \\\n  more\nout\nput\n$ two\n");
    let part: Vec<_> = part.iter().map(|(command, output)| (command.as_str(), output.trim())).collect();
    assert_eq!(part, [("one \\\n  more", "out\nput"), ("two", "")]);
}
