//! Loopback ports for children that cannot say which one they took.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the range that Linux takes for outgoing connections (32768 and up), so
/// that a port stays free while its server is stopped for a moment.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port on 127.0.0.1 that nobody listens on now and that this process gives
/// out once. Another process may still take it: whoever starts a server on it
/// retries with another one.
#[must_use]
pub fn free_port() -> u16 {
    // Processes start at different places, so that those running at the same
    // time rarely try the same ports.
    let start = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("the range ends below 65536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 between {FIRST} and {}", FIRST + COUNT);
}
