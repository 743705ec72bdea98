//! A listener on this machine for the redirect of the seller's browser: one page, one code.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tiktok_shop_operator::tokens::SecretText;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use crate::messages::Messages;
use crate::redirect::{LONGEST, Refused, of_query};
use crate::terminal::complain;

/// A browser sends its request at once, where it sends one; it also opens connections without any.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at the same time; a browser opens a few.
const CONNECTIONS: usize = 16;

/// Waits for the redirect. Whatever else comes is answered and not taken: also a redirect of another state, which any
/// page that the browser shows could send here.
pub async fn catch(listener: &TcpListener, state: &str, messages: &Messages) -> Result<SecretText, Refused> {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                // One that failed before it was accepted is none.
                if let Ok((stream, _)) = accepted {
                    let answer = answer(stream, state, messages);
                    connections.push(async { tokio::time::timeout(PATIENCE, answer).await.ok().flatten() });
                }
            }
            Some(caught) = connections.next() => match caught {
                Some(Err(Refused::State)) => complain(&messages.text("authorize-wrong-state-came")),
                Some(Ok(code)) => return Ok(code),
                Some(Err(refused @ Refused::Denied(_))) => return Err(refused),
                Some(Err(Refused::NoCode | Refused::TooLong)) | None => {}
            },
        }
    }
}

/// Reads one request and answers it; what it brought, where it is a redirect.
async fn answer(mut stream: TcpStream, state: &str, messages: &Messages) -> Option<Result<SecretText, Refused>> {
    let head = head(&mut stream).await?;
    let brought = target(&head).map(|target| match target.split_once('?') {
        Some((_, query)) => of_query(query, Some(state)),
        None => Err(Refused::NoCode),
    });
    let (status, key) = match &brought {
        Some(Ok(_)) => ("200 OK", "callback-done"),
        Some(Err(Refused::Denied(_))) => ("200 OK", "callback-denied"),
        Some(Err(Refused::State)) => ("400 Bad Request", "callback-wrong-state"),
        Some(Err(Refused::NoCode | Refused::TooLong)) => ("404 Not Found", "callback-nothing"),
        None => ("405 Method Not Allowed", "callback-nothing"),
    };
    let page = messages.text(key);
    // The code stands in the page's address: nothing may keep it or pass it on.
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{page}\n",
        page.len() + 1
    );
    // The code has come, whether the browser waits for the page or not.
    if stream.write_all(text.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    brought
}

/// The head of a request, as far as its first line; `None` where none comes.
async fn head(stream: &mut TcpStream) -> Option<Zeroizing<Vec<u8>>> {
    let mut head = Zeroizing::new(vec![0; LONGEST * 2]);
    let mut length = 0;
    loop {
        let read = stream.read(&mut head[length..]).await.ok().filter(|read| *read > 0)?;
        length += read;
        // All of the head is read, or the connection could be reset under the answer.
        if head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            head.truncate(length);
            return Some(head);
        }
    }
}

/// What a request asks for; `None` where it does not ask by GET.
fn target(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next() == Some("GET")).then(|| words.next())?
}

/// An address of this machine alone.
pub fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address: Option<SocketAddr> = text.parse().ok();
    address.filter(|address| address.ip().is_loopback()).ok_or("usage-callback")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_listened_on() {
        for (text, is_taken) in [
            ("127.0.0.1:8484", true),
            ("[::1]:8484", true),
            ("127.8.8.8:1", true),
            ("0.0.0.0:8484", false),
            ("192.168.1.1:8484", false),
            ("127.0.0.1", false),
            ("localhost:8484", false),
            ("8484", false),
        ] {
            assert_eq!(loopback(text).is_ok(), is_taken, "{text}");
        }
    }

    #[test]
    fn the_first_line_of_a_request_says_what_it_asks_for() {
        for (head, expected) in [
            ("GET /?code=a HTTP/1.1\r\nHost: x\r\n\r\n", Some("/?code=a")),
            ("GET /cb HTTP/1.1\r\n\r\n", Some("/cb")),
            ("POST /?code=a HTTP/1.1\r\n\r\n", None),
            ("HEAD / HTTP/1.1\r\n\r\n", None),
            ("\r\n\r\n", None),
        ] {
            assert_eq!(target(head.as_bytes()), expected, "{head:?}");
        }
    }
}
