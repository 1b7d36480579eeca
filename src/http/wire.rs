//! A caller's connection as the HTTP library sees it: strictly framed, cut off when its caller does not read, and
//! closed so that the last answer arrives. Once it has switched to another protocol, only the last two hold.

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

/// No part of a request head may hold NUL: after it the library answers 400, behind the answers to earlier requests,
/// and closes. The rest makes the head look complete, for the library parses nothing less.
const REFUSED_HEAD: &[u8] = b"\0\r\n\r\n";

pub struct CallerStream {
    stream: TcpStream,
    place: Arc<ConnectionSlot>,
    /// Runs once the connection carries a stream, which must be over at its end.
    overdue: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_cut: bool,
    framing: Framing,
    /// What is left of [`REFUSED_HEAD`] to hand out, once a head was refused; then the connection reads as ended.
    refused: Option<&'static [u8]>,
    /// Why no more of a body can be read.
    faulty_body: Option<&'static str>,
    /// How long nothing may be written before the connection is cut off.
    write_timeout: Duration,
    /// Runs while the socket takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    shutdown: Shutdown,
    lingering: Option<Lingering>,
}

/// Our side is closed. What the caller still sends is read and dropped for a while: closing a socket with unread bytes
/// resets it, and a reset destroys an answer that the caller has not read yet.
struct Lingering {
    whole: Pin<Box<dyn Future<Output = ()> + Send>>,
    idle: Pin<Box<Sleep>>,
}

impl CallerStream {
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

    /// Whether the connection carries a stream that should have ended: then it reads as ended, and takes nothing more.
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

    /// An error once the socket has taken nothing for too long; the connection is reset then, or the kernel would go on
    /// offering what it holds of the answer.
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
            tracing::debug!(
                why = fault.why,
                "a request could be read in two ways; it is refused, its connection closed"
            );
            buf.set_filled(before + fault.at);
            if fault.in_head {
                wire.refused = Some(REFUSED_HEAD);
            } else {
                wire.faulty_body = Some(fault.why);
                // What came before may hold whole requests.
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
                // The caller has closed its side, or is gone.
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
