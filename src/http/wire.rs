//! A caller's connection as the HTTP library uses it. It checks the framing of requests, cuts off a caller that does
//! not read, and closes so that the last answer arrives. After a switch of protocols the framing is no longer checked.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::framing::Framing;
use super::stream::{ConnectionSlot, Stream};
use crate::limits;
use crate::shutdown::Shutdown;

/// Replaces a refused head. A head with NUL makes the library answer 400, after the answers to earlier requests, and
/// close the connection. The empty line completes the head, because the library parses complete heads only.
const REFUSED_HEAD: &[u8] = b"\0\r\n\r\n";

pub struct CallerStream {
    stream: TcpStream,
    place: Arc<ConnectionSlot>,
    /// The deadline of the stream, once the connection carries one.
    overdue: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_cut: bool,
    framing: Framing,
    /// The rest of [`REFUSED_HEAD`] to hand to the library once a head was refused; after it the connection reads as
    /// ended.
    refused: Option<&'static [u8]>,
    /// The fault of a body; nothing more of it is read.
    faulty_body: Option<&'static str>,
    /// How long the socket may accept nothing before the connection is cut.
    write_timeout: Duration,
    /// The deadline while the socket accepts nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    shutdown: Shutdown,
    lingering: Option<Lingering>,
}

/// The state after our side was closed. Bytes that the caller still sends are read and dropped for a while: closing a
/// socket with unread bytes resets it, and a reset destroys an answer that the caller has not read yet.
struct Lingering {
    whole: Pin<Box<dyn Future<Output = ()> + Send>>,
    idle: Pin<Box<Sleep>>,
}

impl CallerStream {
    /// A connection with its slot. `write_timeout`: how long the socket may accept nothing before the connection is
    /// cut.
    pub fn new(
        stream: TcpStream,
        place: Arc<ConnectionSlot>,
        write_timeout: Duration,
        shutdown: Shutdown,
    ) -> CallerStream {
        CallerStream {
            stream,
            place,
            overdue: None,
            is_cut: false,
            framing: Framing::default(),
            refused: None,
            faulty_body: None,
            write_timeout,
            stalled: None,
            shutdown,
            lingering: None,
        }
    }

    /// Whether the connection carries a stream past its deadline. It then reads as ended, and writes fail.
    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_cut && self.place.stream().is_some() {
            let place = &self.place;
            self.is_cut = self.overdue.get_or_insert_with(|| place.stream_deadline()).as_mut().poll(cx).is_ready();
        }
        self.is_cut
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the process stops")));
        }
        let written = write(pin!(&mut self.stream), cx);
        self.check_write_progress(written, cx)
    }

    /// Fails once the socket has accepted nothing for `write_timeout`. The connection is then reset; otherwise the
    /// kernel would keep retransmitting the rest of the answer.
    fn check_write_progress<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_timeout)));
        ready!(stalled.as_mut().poll(cx));
        let _best_effort = self.stream.set_zero_linger();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller reads nothing")))
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        if wire.refused.is_none() && wire.faulty_body.is_none() {
            let before = buf.filled().len();
            ready!(pin!(&mut wire.stream).poll_read(cx, buf))?;
            if wire.place.stream() == Some(Stream::Switched) {
                return Poll::Ready(Ok(()));
            }
            let Err(fault) = wire.framing.read(&buf.filled()[before..]) else { return Poll::Ready(Ok(())) };
            tracing::debug!(why = fault.why, "a request is ambiguous: it is refused and its connection closed");
            buf.set_filled(before + fault.at);
            if fault.in_head {
                wire.refused = Some(REFUSED_HEAD);
            } else {
                wire.faulty_body = Some(fault.why);
                // The bytes before the fault may contain whole requests.
                if fault.at > 0 {
                    return Poll::Ready(Ok(()));
                }
            }
        }
        if let Some(why) = wire.faulty_body {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        if let Some(rest) = &mut wire.refused {
            let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
            buf.put_slice(now);
            *rest = later;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.lingering.is_none() {
            ready!(pin!(&mut wire.stream).poll_shutdown(cx))?;
        }
        let shutdown = &wire.shutdown;
        let lingering = wire.lingering.get_or_insert_with(|| Lingering::new(shutdown.clone()));
        loop {
            if lingering.whole.as_mut().poll(cx).is_ready() || lingering.idle.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut dropped = [0; 4096];
            let mut dropped = ReadBuf::new(&mut dropped);
            match ready!(pin!(&mut wire.stream).poll_read(cx, &mut dropped)) {
                Ok(()) if !dropped.filled().is_empty() => {
                    lingering.idle.as_mut().reset(Instant::now() + limits::LINGER_IDLE);
                }
                // The caller closed its side or disconnected.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl Lingering {
    fn new(shutdown: Shutdown) -> Lingering {
        let whole = async move {
            tokio::select! {
                () = sleep(limits::LINGER) => (),
                () = async {
                    shutdown.stopping().await;
                    sleep(limits::LINGER_STOPPING).await;
                } => (),
            }
        };
        Lingering { whole: Box::pin(whole), idle: Box::pin(sleep(limits::LINGER_IDLE)) }
    }
}
