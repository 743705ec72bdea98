//! The smallest name server that a resolver takes for one: it knows a few names, all of them 127.0.0.1.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// A resolver asks no other port.
const PORT: u16 = 53;
const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
/// A response (RFC 1035, 4.1.1), authoritative, to a question that asked for recursion, which there is.
const ANSWER: u8 = 0x85;
const NO_ERROR: u8 = 0x80;
const NO_SUCH_NAME: u8 = 0x83;

/// A running server; gone when dropped.
pub struct Dns {
    address: Ipv4Addr,
    asked: Arc<Mutex<BTreeSet<String>>>,
    task: AbortHandle,
}

impl Dns {
    /// Knows these names and no others. It takes an address of its own in 127.0.0.0/8: every server of a test has port 53.
    pub async fn start(names: &[&str]) -> Self {
        let (socket, address) = Self::bind().await;
        let names: BTreeSet<String> = names.iter().copied().map(str::to_owned).collect();
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                if let Some((name, answer)) = answer(&packet[..length], &names) {
                    log.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                    // A resolver that is gone asks no more.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    async fn bind() -> (UdpSocket, Ipv4Addr) {
        let [.., high, low] = std::process::id().to_be_bytes();
        for number in 1..=254 {
            let address = Ipv4Addr::new(127, high | 1, low, number);
            match UdpSocket::bind((address, PORT)).await {
                Ok(socket) => return (socket, address),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => panic!("failed to listen on {address}:{PORT}, which only root may: {error}"),
            }
        }
        panic!("no address of 127.0.0.0/8 is free");
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Every name that was asked for, known or not.
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name asked for, and the answer; none where the packet is no question.
fn answer(packet: &[u8], known: &BTreeSet<String>) -> Option<(String, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut rest = packet.get(HEADER..)?;
    loop {
        let (&length, after) = rest.split_first()?;
        if length == 0 {
            rest = after;
            break;
        }
        let (label, after) = after.split_at_checked(usize::from(length))?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        rest = after;
    }
    let is_address = rest.get(..2)? == TYPE_A;
    let question = packet.get(HEADER..packet.len() - rest.len() + 4)?;
    let name = labels.join(".");
    let is_known = known.contains(&name);
    let found = is_known && is_address;
    // An AAAA question about a known name has an answer without records: the name is there, the address is not.
    let code = if is_known { NO_ERROR } else { NO_SUCH_NAME };
    let mut answer = vec![packet[0], packet[1], ANSWER, code, 0, 1, 0, u8::from(found), 0, 0, 0, 0];
    answer.extend_from_slice(question);
    if found {
        // The name of the question, type A, class IN, 60 seconds, 4 bytes.
        answer.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&Ipv4Addr::LOCALHOST.octets());
    }
    Some((name, answer))
}
