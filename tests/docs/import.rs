//! `docs/import-tokens.py`. That a table becomes shops that are refreshed is run with its page.

use std::io::{Seek as _, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tiktok_shop_testkit::process::{closed_output, run_into};

use crate::markdown::root;

const HEAD: &str = "name,access_token,access_token_expire_in,refresh_token,refresh_token_expire_in";

fn script() -> Command {
    let mut command = Command::new("python3");
    command.arg(root().join("docs/import-tokens.py")).args(["--namespace", "shops", "--app-secret", "tiktok-app"]);
    command
}

fn import(table: &[u8]) -> Output {
    let mut child = script()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 can be started");
    child.stdin.take().expect("it is piped").write_all(table).expect("the table is read");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_row_becomes_a_secret_and_an_integration() {
    let table = format!("{HEAD},team_id,active\nshop-1, at+/= ,2026-11-24 01:45:47,\"r\"\"t,1\",4833561600,7,f\n");
    let output = import(table.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    assert_eq!(
        list["items"][0]["stringData"],
        json!({"access_token": "at+/=", "access_token_expire_in": "1795484747", "refresh_token": "r\"t,1",
            "refresh_token_expire_in": "4833561600"})
    );
    assert_eq!(list["items"][0]["metadata"], json!({"name": "shop-1-tokens", "namespace": "shops"}));
    assert_eq!(list["items"][1]["metadata"], json!({"name": "shop-1", "namespace": "shops"}));
    assert_eq!(
        list["items"][1]["spec"],
        json!({"appCredentialsSecretRef": {"name": "tiktok-app"}, "tokenSecretRef": {"name": "shop-1-tokens"},
            "teamId": "7", "suspend": true})
    );
}

#[test]
fn a_table_that_is_not_in_order_gives_one_line_that_names_the_place_and_no_value() {
    let good = "shop-1,at-secret,1795484747,rt-secret,4833561600";
    for (rows, said) in [
        (String::new(), "there is no line but the head line"),
        ("Shop 1,at-secret,1795484747,rt-secret,4833561600".to_owned(), "line 2: name must be"),
        ("shop-1,,1795484747,rt-secret,4833561600".to_owned(), "line 2: access_token is empty"),
        ("shop-1,at-secret,soon,rt-secret,4833561600".to_owned(), "line 2: access_token_expire_in is neither"),
        ("shop-1,at-secret,1795484747,rt-secret".to_owned(), "line 2: it has another number of columns"),
        (format!("{good}\n{good}"), "line 3: its name stands in an earlier line"),
        (format!("{good}\nshop-2{}", &good[6..]), "line 3: its refresh token stands in an earlier line"),
        ("shop-1,\"at-secret\"x,1795484747,rt-secret,4833561600".to_owned(), "line 2: "),
    ] {
        let output = import(format!("{HEAD}\n{rows}\n").as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{rows}: {stderr}");
        assert!(output.stdout.is_empty(), "{rows}: something is printed before the table was seen whole");
        assert!(stderr.starts_with("import-tokens: ") && stderr.contains(said), "{rows}: {stderr}");
        assert!(stderr.lines().count() == 1 && !stderr.contains("-secret"), "{rows}: {stderr}");
    }
    for (table, said) in [
        (&b"name,access_token\n"[..], "the head line lacks access_token_expire_in, refresh_token"),
        (&b"name\xff\n"[..], "not UTF-8"),
    ] {
        let output = import(table);
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}

/// A shop that is not active must not become an active one because its column is misspelt.
#[test]
fn a_column_of_another_name_is_refused_with_the_names_that_there_are() {
    for (columns, said) in [
        ("acitve", "line 1: the column \"acitve\" is none of name, access_token, "),
        ("đang chạy", "the column \"đang chạy\" is"),
        ("Active", "refresh_token_expire_in, team_id, active"),
        ("", "the column \"\" is none of"),
        ("active,active", "the column \"active\" stands there twice"),
    ] {
        let cells = "f,f".split(',').take(columns.split(',').count()).collect::<Vec<_>>().join(",");
        let table = format!("{HEAD},{columns}\nshop-1,at,1795484747,rt,4833561600,{cells}\n");
        let output = import(table.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{columns}: {output:?}");
        assert!(stderr.contains(said) && stderr.lines().count() == 1, "{columns}: {stderr}");
    }
    let spaced = format!("{}, active\nshop-1,at,1795484747,rt,4833561600,f\n", HEAD.replace(',', " , "));
    let output = import(spaced.as_bytes());
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"suspend\": true"), "space around a name: {output:?}");
}

/// In every version of Python the same: what `fromisoformat` takes grew with 3.11.
#[test]
fn times_are_taken_as_databases_write_them() {
    let seconds = |time: &str| -> Option<String> {
        let output = import(format!("{HEAD}\nshop-1,at,{time},rt,4833561600\n").as_bytes());
        let list: Value = serde_json::from_slice(&output.stdout).ok()?;
        list["items"][0]["stringData"]["access_token_expire_in"].as_str().map(str::to_owned)
    };
    for (time, wanted) in [
        ("2026-12-07T00:05:35Z", "1796601935"),
        ("2026-12-07 00:05:35", "1796601935"),
        // PostgreSQL's own form of a timestamptz
        ("2026-12-07 07:05:35+07", "1796601935"),
        ("2026-12-07 00:05:35.12345+00:00", "1796601935"),
        ("2026-12-06 20:35:35.9-0330", "1796601935"),
        ("2026-12-07 05:35:35+05:30", "1796601935"),
        ("2026-12-07T00:05Z", "1796601900"),
        ("2026-12-07", "1796601600"),
        ("1796601935", "1796601935"),
    ] {
        assert_eq!(seconds(time).as_deref(), Some(wanted), "{time}");
    }
    for time in [
        "2026-12-07 00:05:35+",
        "2026-12-07 00:05:35+7",
        "2026-12-07 00:05:35+24",
        "2026-13-07",
        "2026-02-30",
        "2026-12-07 25:00",
        "20261207T000535Z",
        "2026-W49-1",
        "0001-01-01 00:00:00+14",
        "infinity",
        "07/12/2026",
        "17966019",
    ] {
        assert_eq!(seconds(time), None, "{time} is refused");
    }
}

/// What can't be written, or read, is told in one line; who reads no more is told nothing.
#[test]
fn an_output_that_is_full_closed_or_gone_is_no_traceback() {
    let run = |redirections: &str| {
        let row = format!("{HEAD}\nshop-1,at-secret,1795484747,rt-secret,4833561600\n");
        let line = "printf %s \"$TABLE\" | { \"$@\" REDIRECTIONS; echo \"ended $?\" >&2; }";
        let script = script();
        Command::new("bash")
            .args(["-c", &line.replace("REDIRECTIONS", redirections), "bash"])
            .arg(script.get_program())
            .args(script.get_args())
            .env("TABLE", row)
            .output()
            .expect("bash can be started")
    };
    for (redirections, said) in [
        (">/dev/full", "import-tokens: failed to write: No space left on device\nended 1\n"),
        (">&-", "import-tokens: failed to write: standard output is closed\nended 1\n"),
        ("<&-", "import-tokens: failed to read: standard input is closed\nended 1\n"),
        ("0>/dev/null", "import-tokens: failed to read: Bad file descriptor\nended 1\n"),
    ] {
        let output = run(redirections);
        assert_eq!(String::from_utf8_lossy(&output.stderr), said, "with {redirections}");
        assert!(output.stdout.is_empty(), "with {redirections}: {output:?}");
    }
    let mut table = tempfile::tempfile().expect("a file can be made");
    writeln!(table, "{HEAD}\nshop-1,at-secret,1795484747,rt-secret,4833561600").expect("a file can be written");
    table.rewind().expect("it is a file");
    let output = run_into(script().stdin(table), closed_output());
    assert!(output.status.code() == Some(1) && output.stderr.is_empty(), "a pipe that nobody reads: {output:?}");
}
