//! What the code under test logs, for a test to read.
//!
//! One subscriber serves all tests of the process: subscribers that come and go race with the cache of `tracing`, which
//! may then hold a log line to be wanted by none. It writes only for threads that capture.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

thread_local! {
    static CAPTURED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

struct Thread;

impl Write for Thread {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        CAPTURED.with_borrow_mut(|c| c.as_mut().map(|c| c.extend_from_slice(buf)));
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines of the thread that made it, until it is dropped. For tests that run on one thread, as `#[tokio::test]`
/// does.
pub struct Captured(());

/// Captures what this thread logs from now on, down to DEBUG. Its hub is there already: `App` installs the subscriber.
pub fn capture() -> Captured {
    CAPTURED.set(Some(Vec::new()));
    Captured(())
}

/// Before the code under test logs its first line.
pub fn install() {
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        let wanted = dynamic_filter_fn(|meta, _| {
            *meta.level() <= tracing::Level::DEBUG && CAPTURED.with_borrow(Option::is_some)
        });
        let lines = fmt::layer().with_ansi(false).with_writer(|| Thread).with_filter(wanted);
        tracing_subscriber::registry().with(lines).init();
    });
}

impl Captured {
    pub fn text(&self) -> String {
        CAPTURED.with_borrow(|c| String::from_utf8_lossy(c.as_deref().unwrap_or_default()).into_owned())
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        CAPTURED.set(None);
    }
}
