//! Connections that can be cut at a chosen byte, and that know when an answer has left.
//!
//! hyper decides what to write; this layer sits between it and the socket. An answer counts as
//! *delivered* once its last byte was handed to the socket: hyper flushes the transport only when
//! its own buffer is empty, so the first flush after the last piece of a body is that moment.
//! Whether the client's kernel, or the client, ever saw those bytes cannot be known from here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Somebody who wants to know what became of an answer.
pub trait Receipt: Send {
    /// Called once: `true` when the last byte was handed to the socket.
    fn settle(self: Box<Self>, delivered: bool);
}

/// How a connection is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Before the next byte.
    Now { reset: bool },
    /// As soon as what was written so far is out.
    AfterFlush,
}

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    awaiting_flush: Vec<Box<dyn Receipt>>,
    gone: bool,
}

/// A handle on one connection, for the code that answers its requests.
#[derive(Clone)]
pub struct Wire {
    state: Arc<Mutex<State>>,
    gone: watch::Receiver<bool>,
}

impl Wire {
    /// Closes the connection before another byte is written; `reset` sends RST instead of FIN.
    pub fn cut_now(&self, reset: bool) {
        self.state().cut = Some(Cut::Now { reset });
    }

    /// Closes the connection once what was written so far is with the socket.
    pub fn cut_after_flush(&self) {
        self.state().cut = Some(Cut::AfterFlush);
    }

    /// Settles the receipt at the next flush, or when the connection goes away.
    pub fn settle_at_flush(&self, receipt: Box<dyn Receipt>) {
        let mut state = self.state();
        if state.gone {
            drop(state);
            receipt.settle(false);
        } else {
            state.awaiting_flush.push(receipt);
        }
    }

    /// Resolves when the client has closed the connection.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // An error means that the sender, and so the connection, is gone already.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Whether the client has closed the connection.
    pub fn is_gone(&self) -> bool {
        self.state().gone
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is valid after each statement that changes it, so a panic elsewhere is no
        // reason to lose it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out [`Stream`]s.
pub struct Listener(pub TcpListener);

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((tcp, from)) => {
                    // Small answers must not wait for the client's acknowledgement. Failing to set
                    // it means that the client is gone: the next read says so.
                    let _ = tcp.set_nodelay(true);
                    return (Stream::new(tcp), from);
                }
                // Mostly "too many open files": going on at once would spin.
                Err(error) => {
                    eprintln!("failed to accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// One connection from a client.
pub struct Stream {
    tcp: TcpStream,
    wire: Wire,
    gone: watch::Sender<bool>,
}

impl Stream {
    fn new(tcp: TcpStream) -> Self {
        let (sender, receiver) = watch::channel(false);
        Self { tcp, wire: Wire { state: Arc::default(), gone: receiver }, gone: sender }
    }
}

impl Connected<IncomingStream<'_, Listener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().wire.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let undelivered = {
            let mut state = self.wire.state();
            state.gone = true;
            std::mem::take(&mut state.awaiting_flush)
        };
        for receipt in undelivered {
            receipt.settle(false);
        }
        self.gone.send_replace(true);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let cut = self.wire.state().cut;
        if let Some(Cut::Now { reset }) = cut {
            if reset {
                // Where it fails, the client has closed the connection itself.
                let _ = self.tcp.set_zero_linger();
            }
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.tcp).poll_flush(context))?;
        let (delivered, cut) = {
            let mut state = self.wire.state();
            (std::mem::take(&mut state.awaiting_flush), state.cut)
        };
        for receipt in delivered {
            receipt.settle(true);
        }
        if cut == Some(Cut::AfterFlush) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
