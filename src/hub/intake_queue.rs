//! The queue between callers that post messages and the writers that write them in groups (`flow::intake::writer`).

use tokio::sync::{AcquireError, Mutex, Semaphore, SemaphorePermit, mpsc, oneshot};

use super::rates::Rate;
use crate::error::{Error, Result};
use crate::limits;
use crate::model::idempotency::Accepted;
use crate::shutdown::Shutdown;
use crate::store::message::Insert;

/// The callers' end.
pub struct IntakeQueue {
    requests: mpsc::Sender<Request>,
    batches: Semaphore,
}

/// A message that waits to be written, and its caller, who waits for the answer.
pub struct Request {
    pub insert: Insert,
    answer: oneshot::Sender<Result<Accepted>>,
}

impl Request {
    /// Answers the caller. One that went away meanwhile asks again with its key.
    pub fn answer(self, answer: Result<Accepted>) {
        let _gone = self.answer.send(answer);
    }
}

/// The writers' end, shared by all of them: one at a time waits for a group.
pub struct Requests(Mutex<mpsc::Receiver<Request>>);

impl IntakeQueue {
    /// An empty queue of at most `limits::INTAKE_QUEUE` requests.
    pub fn new() -> (IntakeQueue, Requests) {
        let (requests, received) = mpsc::channel(limits::INTAKE_QUEUE);
        (IntakeQueue { requests, batches: Semaphore::new(limits::BATCHES_AT_ONCE) }, Requests(Mutex::new(received)))
    }

    /// Waits for a batch's turn to be read and written, which lasts as long as what is returned. Few at once: a
    /// statement with hundreds of messages keeps a core of the database busy for as long as it runs, and single
    /// messages are not to wait for it. `own` is the partner's.
    ///
    /// # Errors
    /// `Error::Busy` if the turn does not come within `limits::BATCH_TURN`.
    pub async fn batch<'a>(&'a self, own: &'a Rate) -> Result<[SemaphorePermit<'a>; 2]> {
        // First among the partner's own: a batch that waits for those takes no turn of others.
        let turns = async { Ok::<_, AcquireError>([own.batch().await?, self.batches.acquire().await?]) };
        let turns = tokio::time::timeout(limits::BATCH_TURN, turns).await;
        turns.ok().and_then(|turns| turns.ok()).ok_or(Error::Busy("too many batches wait to be written"))
    }

    /// Queues a message; resolves when it is durable, or refused.
    ///
    /// # Errors
    /// `Error::Busy` if the queue is full; `Error::Unavailable` if the writers stopped before they answered; otherwise
    /// the writer's own answer.
    pub async fn write(&self, insert: Insert) -> Result<Accepted> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .try_send(Request { insert, answer })
            .map_err(|_| Error::Busy("too many requests wait to be written"))?;
        answered.await.map_err(|_| Error::Unavailable("the writer stopped before it answered".into()))?
    }
}

impl Requests {
    /// Waits for requests and takes up to `limits::INTAKE_GROUP`, oldest first. When the process stops, the queue
    /// closes and what it holds is still taken; None once it is empty.
    pub async fn next_group(&self, shutdown: &Shutdown) -> Option<Vec<Request>> {
        let mut group = Vec::new();
        let mut requests = self.0.lock().await;
        tokio::select! {
            // What already waits is written before the signal to stop is looked at.
            biased;
            taken = requests.recv_many(&mut group, limits::INTAKE_GROUP) => return (taken > 0).then_some(group),
            () = shutdown.stopping() => requests.close(),
        }
        let taken = requests.recv_many(&mut group, limits::INTAKE_GROUP).await;
        (taken > 0).then_some(group)
    }
}
