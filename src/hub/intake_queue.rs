//! Queue between the callers that post messages and the writers that write them in groups (`flow::intake::writer`).

use tokio::sync::{AcquireError, Mutex, Semaphore, SemaphorePermit, mpsc, oneshot};

use super::rates::PartnerRate;
use crate::error::{Error, Result};
use crate::limits;
use crate::model::idempotency::Accepted;
use crate::shutdown::Shutdown;
use crate::store::message::NewMessageRow;

/// The callers' end of the queue.
pub struct IntakeQueue {
    requests: mpsc::Sender<Request>,
    batches: Semaphore,
}

/// A message that waits to be written, and the caller that waits for the answer.
pub struct Request {
    /// The rows to write.
    pub insert: NewMessageRow,
    answer: oneshot::Sender<Result<Accepted>>,
}

impl Request {
    /// Answers the caller. An answer to a caller that went away is dropped: it posts again with its key.
    pub fn answer(self, answer: Result<Accepted>) {
        let _gone = self.answer.send(answer);
    }
}

/// The writers' end of the queue, shared by all writers: one at a time waits for a group.
pub struct Requests(Mutex<mpsc::Receiver<Request>>);

impl IntakeQueue {
    /// Makes an empty queue of at most `limits::INTAKE_QUEUE` requests, and returns both its ends.
    pub fn new() -> (IntakeQueue, Requests) {
        let (requests, received) = mpsc::channel(limits::INTAKE_QUEUE);
        (IntakeQueue { requests, batches: Semaphore::new(limits::BATCHES_AT_ONCE) }, Requests(Mutex::new(received)))
    }

    /// Waits for the turn of a batch to be read and written. The turn lasts as long as the returned permits. Few
    /// batches run at once: a statement with hundreds of messages keeps a core of the database busy while it runs, and
    /// single messages would wait behind it. `own` is the partner's rate.
    ///
    /// # Errors
    /// `Error::Busy` if the turn does not come within `limits::BATCH_TURN`.
    pub async fn batch_turn<'a>(&'a self, own: &'a PartnerRate) -> Result<[SemaphorePermit<'a>; 2]> {
        // The partner's own permit first: a batch that waits for that one takes no turn from other partners.
        let turns = async { Ok::<_, AcquireError>([own.batch_turn().await?, self.batches.acquire().await?]) };
        let turns = tokio::time::timeout(limits::BATCH_TURN, turns).await;
        turns.ok().and_then(|turns| turns.ok()).ok_or(Error::Busy("too many batches wait to be written"))
    }

    /// Queues a message and waits until it is durable or refused.
    ///
    /// # Errors
    /// `Error::Busy` if the queue is full; nothing was written. `Error::Unavailable` if the writers stopped before they
    /// answered; the message may have been written. Otherwise the error with which the writer answered.
    pub async fn write(&self, insert: NewMessageRow) -> Result<Accepted> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .try_send(Request { insert, answer })
            .map_err(|_| Error::Busy("too many requests wait to be written"))?;
        answered.await.map_err(|_| Error::Unavailable("the writer stopped before it answered".into()))?
    }
}

impl Requests {
    /// Waits for requests and takes up to `limits::INTAKE_GROUP`, oldest first. When the process stops, the queue takes
    /// no further request, and the groups that it still holds are returned; None once it is empty.
    pub async fn next_group(&self, shutdown: &Shutdown) -> Option<Vec<Request>> {
        let mut group = Vec::new();
        let mut requests = self.0.lock().await;
        tokio::select! {
            // Requests that already wait are taken before the signal to stop is looked at.
            biased;
            taken = requests.recv_many(&mut group, limits::INTAKE_GROUP) => return (taken > 0).then_some(group),
            () = shutdown.stopping() => requests.close(),
        }
        let taken = requests.recv_many(&mut group, limits::INTAKE_GROUP).await;
        (taken > 0).then_some(group)
    }
}
