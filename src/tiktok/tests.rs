//! The client over real sockets, against servers that behave badly.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

const NOW: i64 = 1_720_000_000;
const APP_SECRET: &str = "app+secret/0123456789=";
const REFRESH_TOKEN: &str = "TTP_refresh&token%0123456789";
const GRANT: &str = r#"{"code":0,"message":"success","request_id":"req-1","data":{"access_token":"TTP_new-access","access_token_expire_in":1720604800,"refresh_token":"TTP_new-refresh","refresh_token_expire_in":4900000000,"open_id":"o1","seller_name":null}}"#;
const SPENT: &str = r#"{"code":36004005,"message":"no related auth record","request_id":"req-2","data":{}}"#;
/// Any valid certificate: with it, a client for HTTPS needs none of the platform's.
const ROOT: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBtjCCAVugAwIBAgITBmyf1XSXNmY/Owua2eiedgPySjAKBggqhkjOPQQDAjA5
MQswCQYDVQQGEwJVUzEPMA0GA1UEChMGQW1hem9uMRkwFwYDVQQDExBBbWF6b24g
Um9vdCBDQSAzMB4XDTE1MDUyNjAwMDAwMFoXDTQwMDUyNjAwMDAwMFowOTELMAkG
A1UEBhMCVVMxDzANBgNVBAoTBkFtYXpvbjEZMBcGA1UEAxMQQW1hem9uIFJvb3Qg
Q0EgMzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCmXp8ZBf8ANm+gBG1bG8lKl
ui2yEujSLtf6ycXYqm0fc4E7O5hrOXwzpcVOho6AF2hiRVd9RFgdszflZwjrZt6j
QjBAMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgGGMB0GA1UdDgQWBBSr
ttvXBp43rDCGB5Fwx5zEGbF4wDAKBggqhkjOPQQDAgNJADBGAiEA4IWSoxe3jfkr
BqWTrBqYaGFy+uGh0PsceGCmQ5nFuMQCIQCcAu/xlJyzlvnrxir4tiz+OpAUFteM
YyRIHN8wfdVoOw==
-----END CERTIFICATE-----
";

/// What a server does with one request.
#[derive(Clone)]
enum Reply {
    /// Sends this and closes the connection.
    Send(String),
    /// Sends this and keeps the connection open for the next request.
    Keep(String),
    /// Sends this and then nothing, for ever.
    Stall(String),
    /// Sends this for ever.
    Flood { head: String, piece: String },
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn ok(body: &str) -> Reply {
    Reply::Send(http("200 OK", "", body))
}

/// A server on a loopback port. It remembers what it was sent, and ends with the test.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (seen, count, answer) = (Arc::clone(&requests), Arc::clone(&connections), Arc::new(answer));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                open.spawn(async move { serve(socket, &seen, &*answer).await });
            }
        });
        Self { address, requests, connections, _tasks: tasks }
    }

    fn client(&self, form: RequestForm, timeout: Duration) -> TokenClient {
        client(&format!("http://{}/api/v2/token/refresh", self.address), form, timeout)
    }

    /// The methods of the requests so far.
    fn methods(&self) -> String {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|request| request.split(' ').next().unwrap()).collect::<Vec<_>>().join(" ")
    }
}

async fn serve(mut socket: TcpStream, seen: &Mutex<Vec<String>>, answer: &(dyn Fn(&str) -> Reply + Send + Sync)) {
    while let Some(request) = read_request(&mut socket).await {
        seen.lock().unwrap().push(request.clone());
        match answer(&request) {
            Reply::Send(text) => {
                let _ = socket.write_all(text.as_bytes()).await;
                return;
            }
            Reply::Keep(text) => socket.write_all(text.as_bytes()).await.unwrap(),
            Reply::Stall(text) => {
                socket.write_all(text.as_bytes()).await.unwrap();
                pending::<()>().await;
            }
            Reply::Flood { head, piece } => {
                let mut written = socket.write_all(head.as_bytes()).await;
                while written.is_ok() {
                    written = socket.write_all(piece.as_bytes()).await;
                }
                return;
            }
        }
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let head = text.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4);
        if let Some(head) = head {
            let lines = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let length = lines.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if text.len() >= head + length.unwrap_or(0) {
                return Some(String::from_utf8(text).unwrap());
            }
        }
        let mut piece = [0; 4096];
        match socket.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => text.extend_from_slice(&piece[..count]),
        }
    }
}

fn client(endpoint: &str, form: RequestForm, timeout: Duration) -> TokenClient {
    TokenClient::new(Endpoint::parse(endpoint).unwrap(), form, Some(ROOT), "test/1", timeout).unwrap()
}

async fn exchange(client: &TokenClient) -> Result<Grant, Failure> {
    call_within(client, LONG, true).await
}

async fn refresh_within(client: &TokenClient, timeout: Duration) -> Result<Grant, Failure> {
    call_within(client, timeout, false).await
}

async fn call_within(client: &TokenClient, timeout: Duration, is_exchange: bool) -> Result<Grant, Failure> {
    let (app_secret, credential) =
        (SecretText::new(APP_SECRET.to_owned()).unwrap(), SecretText::new(REFRESH_TOKEN.to_owned()).unwrap());
    let deadline = Instant::now() + timeout;
    let now = DateTime::from_timestamp(NOW, 0).unwrap();
    let result = if is_exchange {
        client.exchange("app-key", &app_secret, &credential, deadline, now).await
    } else {
        client.refresh("app-key", &app_secret, &credential, deadline, now).await
    };
    if let Err(failure) = &result {
        let shown = format!("{failure} {failure:?}");
        for part in ["0123456789", "MDEyMzQ1Njc4O", "TTP_", "app+secret", "app%2Bsecret"] {
            assert!(!shown.contains(part), "shows a secret: {shown}");
        }
        assert!(failure.message.len() <= 500 && !failure.message.contains('\n'), "{shown}");
        let begins = |c: char| c.is_lowercase() || c.is_numeric() || c == '[';
        assert!(failure.message.starts_with(begins) || failure.message.starts_with("TikTok"), "{shown}");
    }
    result
}

const LONG: Duration = Duration::from_mins(1);
/// For tests that wait it out.
const SHORT: Duration = Duration::from_millis(1_200);

async fn refresh(client: &TokenClient) -> Result<Grant, Failure> {
    refresh_within(client, LONG).await
}

async fn failure_of(reply: Reply, form: RequestForm) -> Failure {
    let server = Server::start(move |_| reply.clone()).await;
    refresh(&server.client(form, LONG)).await.expect_err("tokens were granted")
}

fn verdict(failure: &Failure) -> (FailureReason, Spent) {
    (failure.reason, failure.spent)
}

#[tokio::test]
async fn a_refresh_by_json_sends_a_body_and_nothing_secret_in_its_head() {
    let server = Server::start(|_| ok(GRANT)).await;
    let grant = refresh(&server.client(RequestForm::Json, LONG)).await.unwrap();
    assert_eq!(grant.access_token.expose(), "TTP_new-access");
    assert_eq!(grant.refresh_token.unwrap().expose(), "TTP_new-refresh");
    assert_eq!((grant.access_expires_at, grant.refresh_expires_at), (Some(1_720_604_800), Some(4_900_000_000)));
    assert_eq!(grant.request_id.as_deref(), Some("req-1"));

    let requests = server.requests.lock().unwrap();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /api/v2/token/refresh HTTP/1.1\r\n"), "{head}");
    for line in ["content-type: application/json", "accept: application/json", "user-agent: test/1"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    let expected = serde_json::json!({
        "app_key": "app-key", "app_secret": APP_SECRET, "refresh_token": REFRESH_TOKEN, "grant_type": "refresh_token",
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);
}

#[tokio::test]
async fn a_refresh_by_query_sends_values_encoded_and_no_body() {
    let server = Server::start(|_| ok(GRANT)).await;
    refresh(&server.client(RequestForm::Query, LONG)).await.unwrap();
    let requests = server.requests.lock().unwrap();
    let line = "GET /api/v2/token/refresh?app_key=app-key&app_secret=app%2Bsecret%2F0123456789%3D&refresh_token=TTP_refresh%26token%250123456789&grant_type=refresh_token HTTP/1.1\r\n";
    assert!(requests[0].starts_with(line), "{}", requests[0]);
    assert!(requests[0].ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn an_exchange_sends_its_code_by_query() {
    let server = Server::start(|_| ok(GRANT)).await;
    let grant = exchange(&server.client(RequestForm::Query, LONG)).await.unwrap();
    assert_eq!(grant.refresh_token.unwrap().expose(), "TTP_new-refresh");
    let requests = server.requests.lock().unwrap();
    let line = "GET /api/v2/token/refresh?app_key=app-key&app_secret=app%2Bsecret%2F0123456789%3D&auth_code=TTP_refresh%26token%250123456789&grant_type=authorized_code HTTP/1.1\r\n";
    assert!(requests[0].starts_with(line), "{}", requests[0]);
}

#[tokio::test]
async fn an_exchange_that_gives_no_refresh_token_has_given_nothing_and_a_refresh_has() {
    let half = r#"{"code":0,"data":{"access_token":"TTP_new-access"}}"#;
    let server = Server::start(move |_| ok(half)).await;
    let client = server.client(RequestForm::Query, LONG);
    let failure = exchange(&client).await.expect_err("there is no old refresh token that could stay");
    assert_eq!(verdict(&failure), (FailureReason::InvalidResponse, Spent::Unknown), "{failure}");
    assert!(refresh(&client).await.unwrap().refresh_token.is_none());
}

#[tokio::test]
async fn an_exchange_that_is_cut_off_or_not_served_shows_no_code() {
    for (reply, expected) in [
        (Reply::Send(String::new()), (FailureReason::NetworkError, Spent::Unknown)),
        (Reply::Send(http("404 Not Found", "", REFRESH_TOKEN)), (FailureReason::ApiError, Spent::Unspent)),
        (ok(&SPENT.replace("no related", REFRESH_TOKEN)), (FailureReason::AuthorizationCodeRejected, Spent::Answered)),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let failure = exchange(&server.client(RequestForm::Query, LONG)).await.unwrap_err();
        assert_eq!(verdict(&failure), expected, "{failure}");
    }
}

#[tokio::test]
async fn auto_finds_the_form_that_is_served_and_remembers_it_until_it_is_served_no_more() {
    let method_taken = Arc::new(Mutex::new("GET"));
    let method_now = Arc::clone(&method_taken);
    let server = Server::start(move |request| {
        if request.starts_with(*method_now.lock().unwrap()) {
            Reply::Keep(http("200 OK", "", SPENT))
        } else {
            Reply::Keep(http("404 Not Found", "", "404 page not found"))
        }
    })
    .await;
    let client = server.client(RequestForm::Auto, LONG);
    for (method, methods) in [("GET", "POST GET"), ("GET", "GET"), ("POST", "GET POST"), ("POST", "POST")] {
        *method_taken.lock().unwrap() = method;
        server.requests.lock().unwrap().clear();
        let failure = refresh(&client).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::RefreshTokenRejected, Spent::Answered), "{failure}");
        assert_eq!(server.methods(), methods);
    }
    assert_eq!(*server.connections.lock().unwrap(), 1, "a kept connection was not used again");
}

#[tokio::test]
async fn an_endpoint_that_serves_neither_form_has_spent_nothing() {
    for status in ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"] {
        let server = Server::start(move |_| Reply::Send(http(status, "", "nothing here"))).await;
        let failure = refresh(&server.client(RequestForm::Auto, LONG)).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::ApiError, Spent::Unspent), "{failure}");
        assert!(failure.message.contains("--token-endpoint"), "{failure}");
        assert_eq!(failure.http_status, Some(status[..3].parse().unwrap()));
        assert_eq!(server.methods(), "POST GET");
    }
}

#[tokio::test]
async fn a_form_that_was_asked_for_is_the_only_one_tried() {
    for (form, method) in [(RequestForm::Json, "POST"), (RequestForm::Query, "GET")] {
        let server = Server::start(|_| Reply::Send(http("404 Not Found", "", ""))).await;
        let failure = refresh(&server.client(form, LONG)).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::ApiError, Spent::Unspent), "{failure}");
        assert_eq!(server.methods(), method);
    }
}

#[tokio::test]
async fn a_second_form_is_not_tried_where_the_first_may_have_spent_the_token() {
    for reply in [
        Reply::Send(http("404 Not Found", "", SPENT)),
        Reply::Send(http("500 Oops", "", "")),
        Reply::Send(http("429 Too Many", "", "")),
        Reply::Send(http("403 Forbidden", "", "<html>")),
        Reply::Send("HTTP/1.1 404 Not Found\r\ncontent-length: 100\r\n\r\n{\"code\":0,".to_owned()),
        Reply::Send(String::new()),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let failure = refresh(&server.client(RequestForm::Auto, LONG)).await.unwrap_err();
        assert_eq!(server.methods(), "POST", "{failure}");
    }
}

#[tokio::test]
async fn a_second_form_that_breaks_leaves_the_token_unknown() {
    let server = Server::start(|request| {
        if request.starts_with("POST") {
            Reply::Send(http("404 Not Found", "", ""))
        } else {
            Reply::Send(String::new())
        }
    })
    .await;
    let failure = refresh(&server.client(RequestForm::Auto, LONG)).await.unwrap_err();
    assert_eq!(verdict(&failure), (FailureReason::NetworkError, Spent::Unknown), "{failure}");
}

#[tokio::test]
async fn tokens_are_taken_whatever_the_status_they_come_with() {
    for status in ["200 OK", "404 Not Found", "429 Too Many", "500 Oops", "302 Found"] {
        let server = Server::start(move |_| Reply::Send(http(status, "", GRANT))).await;
        refresh(&server.client(RequestForm::Auto, LONG)).await.unwrap_or_else(|failure| panic!("{status}: {failure}"));
    }
}

#[tokio::test]
async fn an_answer_cut_anywhere_leaves_the_token_unknown() {
    let whole = http("200 OK", "", GRANT);
    for end in [0, 1, 9, 20, whole.find("{\"code").unwrap(), whole.len() / 2, whole.len() - 1] {
        let failure = failure_of(Reply::Send(whole[..end].to_owned()), RequestForm::Json).await;
        assert_eq!(verdict(&failure), (FailureReason::NetworkError, Spent::Unknown), "cut at {end}: {failure}");
    }
}

#[tokio::test]
async fn an_answer_without_a_length_that_ends_early_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let failure = failure_of(Reply::Send(format!("{head}{}", &GRANT[..100])), RequestForm::Json).await;
    assert_eq!(verdict(&failure), (FailureReason::InvalidResponse, Spent::Unknown), "{failure}");
}

#[tokio::test]
async fn what_is_no_answer_of_tiktoks_leaves_the_token_unknown() {
    for (what, reply) in [
        ("a web page", ok("<!DOCTYPE html><html>Sign in to the airport's network</html>")),
        ("an empty body", ok("")),
        ("an object without a code", ok(r#"{"error":"invalid_grant"}"#)),
        ("success without tokens", ok(r#"{"code":0,"message":"success","data":{}}"#)),
        ("a refusal by a firewall", Reply::Send(http("403 Forbidden", "", "<html>blocked</html>"))),
        ("a refusal without tiktok's form", Reply::Send(http("400 Bad Request", "", "{}"))),
    ] {
        let failure = failure_of(reply, RequestForm::Auto).await;
        assert_eq!(verdict(&failure), (FailureReason::InvalidResponse, Spent::Unknown), "{what}: {failure}");
    }
}

#[tokio::test]
async fn what_is_no_http_leaves_the_token_unknown() {
    let failure = failure_of(Reply::Send("SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned()), RequestForm::Auto).await;
    assert_eq!(verdict(&failure), (FailureReason::NetworkError, Spent::Unknown), "{failure}");
}

#[tokio::test]
async fn a_flood_is_read_up_to_one_mebibyte_whatever_length_it_claims() {
    let piece = "x".repeat(1 << 16);
    for (how, head, piece) in [
        ("too long a length", "content-length: 2097152\r\n\r\n", piece.clone()),
        ("an absurd length", "content-length: 9000000000000000000\r\n\r\n", piece.clone()),
        ("no length", "connection: close\r\n\r\n", piece.clone()),
        ("chunks", "transfer-encoding: chunked\r\n\r\n", format!("10000\r\n{piece}\r\n")),
    ] {
        let reply = Reply::Flood { head: format!("HTTP/1.1 200 OK\r\n{head}"), piece };
        let failure = failure_of(reply, RequestForm::Auto).await;
        assert_eq!(verdict(&failure), (FailureReason::InvalidResponse, Spent::Unknown), "{how}: {failure}");
        assert!(failure.message.contains("more than 1 MiB"), "{how}: {failure}");
    }
}

#[tokio::test]
async fn an_answer_of_nearly_one_mebibyte_is_read() {
    let body = GRANT.replace("\"o1\"", &format!("\"{}\"", "o".repeat((1 << 20) - GRANT.len())));
    let server = Server::start(move |_| ok(&body)).await;
    let grant = refresh(&server.client(RequestForm::Json, LONG)).await.unwrap();
    assert_eq!(grant.seller.open_id.unwrap().len(), 256);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_only_its_host_is_named() {
    let trap = Server::start(|_| ok(GRANT)).await;
    let location = format!("location: http://{}/x?refresh_token={REFRESH_TOKEN}\r\n", trap.address);
    let server = Server::start(move |_| Reply::Send(http("307 Temporary Redirect", &location, ""))).await;
    for form in [RequestForm::Json, RequestForm::Query] {
        let failure = refresh(&server.client(form, LONG)).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::InvalidResponse, Spent::Unknown), "{failure}");
        assert!(failure.message.contains("redirects to 127.0.0.1,"), "{failure}");
    }
    assert_eq!(trap.methods(), "", "the redirect was followed");
}

#[tokio::test]
async fn an_error_that_repeats_what_was_sent_is_shown_without_it() {
    let server = Server::start(|request| {
        let echo = serde_json::to_string(&format!("bad request: {request} {REFRESH_TOKEN}")).unwrap();
        ok(&format!(r#"{{"code":1,"message":{echo},"request_id":{echo}}}"#))
    })
    .await;
    for form in [RequestForm::Json, RequestForm::Query] {
        let failure = refresh(&server.client(form, LONG)).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::ApiError, Spent::Answered), "{failure}");
        assert_eq!(failure.code, Some(1));
    }
}

#[tokio::test]
async fn a_refused_port_has_spent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for endpoint in [format!("http://{address}/"), format!("http://localhost:{}/", address.port())] {
        let failure = refresh(&client(&endpoint, RequestForm::Auto, LONG)).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::NetworkError, Spent::Unspent), "{failure}");
        assert!(failure.message.contains("onnection refused"), "{failure}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_has_spent_nothing() {
    let failure = refresh(&client("https://tiktok.invalid/", RequestForm::Query, LONG)).await.unwrap_err();
    assert_eq!(failure.spent, Spent::Unspent, "{failure}");
}

#[tokio::test]
async fn a_failed_tls_handshake_has_spent_nothing() {
    // Whatever the first bytes are, they are no request: they stay unread.
    for garbage in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut hello = [0; 512];
            let _ = socket.read(&mut hello).await.unwrap();
            let _ = socket.write_all(garbage.as_bytes()).await;
            drop(socket);
            pending::<()>().await;
        };
        let client = client(&endpoint, RequestForm::Query, LONG);
        let failure = tokio::select! { result = refresh(&client) => result.unwrap_err(), () = serve => unreachable!() };
        assert_eq!(verdict(&failure), (FailureReason::NetworkError, Spent::Unspent), "{garbage:?}: {failure}");
    }
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_ends_in_time_and_has_spent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}/", listener.local_addr().unwrap());
    // Not accepted: the kernel takes the connection, and nobody answers on it.
    let failure = refresh_within(&client(&endpoint, RequestForm::Auto, SHORT), SHORT).await.unwrap_err();
    assert_eq!(verdict(&failure), (FailureReason::Timeout, Spent::Unspent), "{failure}");
}

#[tokio::test]
async fn a_call_with_too_little_time_left_is_not_begun() {
    let server = Server::start(|_| ok(GRANT)).await;
    for left in [Duration::ZERO, Duration::from_secs(10)] {
        let failure = refresh_within(&server.client(RequestForm::Auto, LONG), left).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::Timeout, Spent::Unspent), "{failure}");
    }
    assert_eq!(*server.connections.lock().unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_end_before_the_deadline_leaves_the_token_unknown() {
    let half = &http("200 OK", "", GRANT)[..200];
    for (how, sent, status) in [
        ("no byte", "", None),
        ("half a head", "HTTP/1.1 200 OK\r\ncontent-le", None),
        ("half a body", half, Some(200)),
        ("half a page that is not found", "HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n404", Some(404)),
    ] {
        let sent = sent.to_owned();
        let server = Server::start(move |_| Reply::Stall(sent.clone())).await;
        let failure = refresh_within(&server.client(RequestForm::Auto, SHORT), SHORT).await.unwrap_err();
        assert_eq!(verdict(&failure), (FailureReason::Timeout, Spent::Unknown), "{how}: {failure}");
        assert_eq!(failure.http_status, status, "{how}");
        assert_eq!(server.methods(), "POST", "{how}");
    }
}

#[tokio::test]
async fn a_429_is_understood_without_its_body() {
    let reply = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n{";
    let failure = failure_of(Reply::Send(reply.to_owned()), RequestForm::Auto).await;
    assert_eq!(verdict(&failure), (FailureReason::RateLimited, Spent::Unspent), "{failure}");
    assert_eq!((failure.retry_after, failure.http_status), (Some(Duration::from_secs(7)), Some(429)));
}

#[test]
fn a_client_is_refused_with_what_to_do() {
    let build = |pem: Option<&[u8]>, user_agent| {
        let endpoint = Endpoint::parse("https://host/").unwrap();
        TokenClient::new(endpoint, RequestForm::Auto, pem, user_agent, LONG).map(|_| ())
    };
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(build(Some(b""), "a"), Err(ClientBuildError::NoCertificate)));
    assert!(matches!(build(Some(b"not PEM"), "a"), Err(ClientBuildError::NoCertificate)));
    assert!(matches!(build(Some(broken), "a"), Err(ClientBuildError::BadCertificate)));
    assert!(matches!(build(Some(ROOT), "a\nb"), Err(ClientBuildError::UserAgent)));
    assert!(build(Some(ROOT), "a").is_ok());
}

#[test]
fn debug_output_of_a_client_shows_its_endpoint() {
    let text = format!("{:?}", client("http://127.0.0.1:1/x", RequestForm::Auto, LONG));
    assert!(text.contains("127.0.0.1") && text.contains("Auto"), "{text}");
}

/// Runs an ignored test of this file in a process of its own, since proxies and roots come from the environment.
async fn run_with_environment(test: &str, variables: &[(&str, &str)]) {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args([&format!("{module}::{test}"), "--exact", "--ignored"]);
    for name in
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"]
    {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn without_roots_on_the_platform_a_client_says_so_or_uses_those_given() {
    let nothing = [("SSL_CERT_FILE", "/nonexistent/file"), ("SSL_CERT_DIR", "/nonexistent/directory")];
    run_with_environment("without_roots", &nothing).await;
}

#[test]
#[ignore = "run by the test above, in an environment without roots"]
fn without_roots() {
    let build = |endpoint, pem| {
        TokenClient::new(Endpoint::parse(endpoint).unwrap(), RequestForm::Auto, pem, "a", LONG).map(|_| ())
    };
    assert!(matches!(build("https://host/", None), Err(ClientBuildError::NoRoots)));
    assert!(build("https://host/", Some(ROOT)).is_ok());
    assert!(build("http://127.0.0.1/", None).is_ok());
}

#[tokio::test]
async fn a_proxy_that_refuses_has_spent_nothing_and_loopback_is_not_sent_through_it() {
    let proxy = Server::start(|_| Reply::Send(http("403 Forbidden", "", "no"))).await;
    let url = format!("http://user:hunter2@{}", proxy.address);
    let variables = [("HTTPS_PROXY", url.as_str()), ("HTTP_PROXY", &url), ("NO_PROXY", "direct.invalid")];
    run_with_environment("through_a_proxy", &variables).await;
    let requests = proxy.requests.lock().unwrap();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].starts_with("CONNECT proxied.invalid:443 "), "{requests:?}");
}

#[tokio::test]
#[ignore = "run by the test above, in an environment with a proxy"]
async fn through_a_proxy() {
    for (endpoint, cause) in [("https://proxied.invalid/", "tunnel"), ("https://direct.invalid/", "")] {
        let failure = refresh(&client(endpoint, RequestForm::Query, LONG)).await.unwrap_err();
        assert_eq!(failure.spent, Spent::Unspent, "{failure}");
        assert!(failure.message.contains(cause) && !failure.message.contains("hunter2"), "{failure}");
    }
    let server = Server::start(|_| ok(GRANT)).await;
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = format!("http://{host}:{}/", server.address.port());
        refresh(&client(&endpoint, RequestForm::Json, LONG)).await.unwrap();
    }
}

/// A process that stands still from before its deadline until after it finds the answer in its socket.
#[test]
fn an_answer_that_came_while_the_process_was_stopped_is_taken_in() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    for after in [0, 20, 45, 55, 70, 120, 240, 260, 600].map(Duration::from_millis) {
        let answering = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = answering.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = answering.accept().unwrap();
            std::thread::sleep(TIMEOUT / 3);
            std::io::Write::write_all(&mut socket, http("200 OK", "", GRANT).as_bytes()).unwrap();
            socket
        });
        // Of one thread, since what stands still is all of it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            let deadline = Instant::now() + TIMEOUT;
            let client = client(&format!("http://{address}/api/v2/token/refresh"), RequestForm::Query, TIMEOUT);
            let stopped = async {
                tokio::time::sleep(TIMEOUT / 6).await;
                std::thread::sleep((deadline + after).saturating_duration_since(Instant::now()));
            };
            tokio::join!(refresh_within(&client, TIMEOUT), stopped).0
        });
        assert!(result.is_ok(), "woken {after:?} after the deadline: {result:?}");
        drop(server.join().unwrap());
    }
}
