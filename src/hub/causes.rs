//! Causes of alerts that this process noted and has not written yet (`flow::alert`).

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock::lock;
use crate::model::alert::AlertCause;

/// By cause: how often it was noted, and its latest detail.
pub type Noted = HashMap<AlertCause, (u64, String)>;

/// The causes noted since they were last taken.
#[derive(Default)]
pub struct Causes(Mutex<Noted>);

impl Causes {
    /// Notes a cause once more, with its latest detail.
    pub fn note(&self, cause: AlertCause, detail: String) {
        let mut all = lock(&self.0);
        let noted = all.entry(cause).or_default();
        *noted = (noted.0 + 1, detail);
    }

    /// Takes all noted causes, so that the caller writes them.
    pub fn take(&self) -> Noted {
        std::mem::take(&mut *lock(&self.0))
    }

    /// Puts back causes that could not be written; a detail noted since then is newer and stays.
    pub fn put_back(&self, unwritten: Noted) {
        let mut all = lock(&self.0);
        for (cause, (times, detail)) in unwritten {
            let noted = all.entry(cause).or_insert((0, detail));
            noted.0 += times;
        }
    }
}
