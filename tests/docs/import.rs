//! `docs/import-tokens.py`. That a table becomes shops that are refreshed is run with its page.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::markdown::root;

const HEAD: &str = "name,access_token,access_token_expire_in,refresh_token,refresh_token_expire_in";

fn import(table: &[u8]) -> Output {
    let mut child = Command::new("python3")
        .arg(root().join("docs/import-tokens.py"))
        .args(["--namespace", "shops", "--app-secret", "tiktok-app"])
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
