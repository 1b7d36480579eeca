//! fsck: checks every invariant of the database, slice by slice.
//!
//! A slice is a range of ids of one shard. All invariants are checked of one slice before the next one, in the order of
//! ids: pages are read while they are in memory, and the progress is one position. Invariants of the whole database are
//! checked at the end, by what the slices have shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::future::try_join_all;

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::alert::AlertCause;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::lane::Lane;
use crate::model::stats::CountTotals;
use crate::store::fsck::{
    self, Counted, Finding, INVARIANTS, KeyMark, KeySlice, LaneEvidence, Recount, Scope, Slice, Violations, WholeFacts,
};
use crate::store::{Conn, Store};

/// How far a check has come: everything before is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The lowest id of a message that is not checked yet.
    Message(Tsid),
    /// All messages are checked; idempotency keys are not.
    Keys,
}

impl Position {
    /// Before everything.
    pub const START: Position = Position::Message(Tsid(i64::MIN));
}

/// The text that `--resume` takes: an id, or `keys`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Message(id) if id.0 < 0 => write!(f, "{}", Tsid(0)),
            Position::Message(id) => write!(f, "{id}"),
            Position::Keys => f.write_str("keys"),
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Position, String> {
        if text == "keys" {
            return Ok(Position::Keys);
        }
        let from = |id: Tsid| if id.0 == 0 { Position::START } else { Position::Message(id) };
        text.parse().map(from).map_err(|_| "a position is an id of 13 characters, or keys".to_owned())
    }
}

/// The part of the database that a check covers.
#[derive(Debug, Clone, Copy)]
pub struct Coverage {
    pub from: Position,
    /// Whether idempotency keys are looked through for those without a message. It reads all keys.
    pub keys: bool,
    /// Deliveries of a slice.
    pub slice: i64,
}

impl Coverage {
    /// The whole database.
    pub const ALL: Coverage = Coverage { from: Position::START, keys: true, slice: limits::FSCK_SLICE };
}

/// Something to check next.
#[derive(Debug)]
enum Part {
    Messages(Slice),
    Keys(KeySlice),
}

/// A slice was checked: number `slice` (from 1) of `of`.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub slice: usize,
    pub of: usize,
    /// Deliveries checked so far.
    pub deliveries: u64,
    /// Where the rest begins; none at the end.
    pub position: Option<Position>,
}

/// The result of one invariant.
#[derive(Debug)]
pub struct Checked {
    pub invariant: &'static str,
    /// What must hold.
    pub law: &'static str,
    pub violations: Violations,
    /// It needs all slices, and the check did not cover them.
    pub skipped: bool,
}

/// A check under way. Call `step` until it returns none, then `finish`.
pub struct Check<'a> {
    /// As many slices are checked at the same time.
    conns: &'a mut [Conn],
    coverage: Coverage,
    began: DateTime<Utc>,
    /// Attempts that were claimed or called before say nothing about `turn` and `moving`.
    evidence_since: DateTime<Utc>,
    /// Keys of messages below this are compared by marks. Others are looked up: they come and go meanwhile.
    marks_to: Tsid,
    parts: VecDeque<Part>,
    done: usize,
    deliveries: u64,
    found: BTreeMap<&'static str, Violations>,
    gathered: Gathered,
}

impl<'a> Check<'a> {
    /// Begins a check on connections of `Store::connect_for_fsck`, at least one; walks the primary keys to cut slices.
    /// `now` is the hub's time.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails; `Error::Internal` without a connection.
    pub async fn begin(conns: &'a mut [Conn], coverage: Coverage, now: DateTime<Utc>) -> Result<Check<'a>> {
        let conn = first(conns)?;
        let shards = fsck::shards(conn).await?;
        let mut parts = VecDeque::new();
        if let Position::Message(from) = coverage.from {
            let mut slices = Vec::new();
            for shard in &shards {
                slices.extend(fsck::slices(conn, Slice::since(*shard, from), coverage.slice).await?);
            }
            slices.sort_by_key(|slice| (slice.from, slice.shard));
            parts.extend(slices.into_iter().map(Part::Messages));
        }
        if coverage.keys {
            for shard in &shards {
                parts.extend(fsck::key_slices(conn, *shard, coverage.slice).await?.into_iter().map(Part::Keys));
            }
        }
        let waits_since = fsck::oldest_pending(conn).await?.map_or(now, |ready_at| ready_at + limits::FSCK_WAIT);
        Ok(Check {
            conns,
            coverage,
            began: now,
            marks_to: Tsid(stretch(Tsid::floor(now - limits::FSCK_TAIL)) << limits::FSCK_STRETCH_BITS),
            evidence_since: waits_since.min(now - limits::FSCK_WAIT),
            parts,
            done: 0,
            deliveries: 0,
            found: BTreeMap::new(),
            gathered: Gathered::default(),
        })
    }

    /// Where the rest begins; none at the end.
    pub fn position(&self) -> Option<Position> {
        self.parts.front().map(|part| match part {
            Part::Messages(slice) => Position::Message(slice.from),
            Part::Keys(_) => Position::Keys,
        })
    }

    /// Checks the next slices, one on each connection; returns none if there is none.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails; nothing of these slices counts, and `position` is still before them.
    pub async fn step(&mut self) -> Result<Option<Step>> {
        self.cut_open_slice().await?;
        if self.parts.is_empty() {
            return Ok(None);
        }
        let scope = PartScope {
            covers_all: self.covers_all(),
            marks_to: self.marks_to,
            evidence_since: self.evidence_since,
            began: self.began,
        };
        let parts = self.conns.iter_mut().zip(&self.parts).map(|(conn, part)| check_part(conn, part, scope));
        let checked = try_join_all(parts).await?;
        for part in checked {
            self.deliveries += part.recounts.iter().map(|r| r.deliveries.unsigned_abs()).sum::<u64>();
            for (invariant, violations) in part.found {
                self.found.entry(invariant).or_default().add(violations);
            }
            if scope.covers_all {
                self.gathered.add(part.shard, part.evidence, part.recounts, self.began - limits::FSCK_WAIT);
            }
            self.gathered.add_marks(part.shard, part.marks.0, part.marks.1);
            self.parts.pop_front();
            self.done += 1;
        }
        let (slice, of) = (self.done, self.done + self.parts.len());
        Ok(Some(Step { slice, of, deliveries: self.deliveries, position: self.position() }))
    }

    /// The last slice of a shard has no upper bound, and grows while the check runs.
    async fn cut_open_slice(&mut self) -> Result<()> {
        if let Some(Part::Messages(slice)) = self.parts.front()
            && slice.to == Slice::all(slice.shard).to
        {
            let cut = fsck::slices(first(self.conns)?, *slice, self.coverage.slice).await?;
            self.parts.pop_front();
            cut.into_iter().rev().for_each(|slice| self.parts.push_front(Part::Messages(slice)));
        }
        Ok(())
    }

    /// Looks up, one by one, the keys of stretches whose marks differ.
    async fn look_up_doubtful_keys(&mut self) -> Result<()> {
        let marks = std::mem::take(&mut self.gathered.marks);
        if !self.covers_all() || !self.coverage.keys {
            return Ok(());
        }
        let mut ranges: BTreeMap<i16, Vec<Slice>> = BTreeMap::new();
        for ((shard, stretch), _) in marks.into_iter().filter(|(_, mark)| *mark != (0, 0)) {
            let bound = |stretch: i64| Tsid(stretch << limits::FSCK_STRETCH_BITS);
            ranges.entry(shard).or_default().push(Slice { shard, from: bound(stretch), to: bound(stretch + 1) });
        }
        let conn = first(self.conns)?;
        for (shard, ranges) in ranges {
            let found = self.found.entry("keys").or_default();
            for range in &ranges {
                for slice in fsck::slices(conn, *range, self.coverage.slice).await? {
                    found.add(fsck::check_slice(conn, "keys", slice, self.began).await?);
                }
            }
            for keys in fsck::key_slices(conn, shard, self.coverage.slice).await? {
                for range in &ranges {
                    found.add(fsck::check_keys(conn, &keys, *range).await?);
                }
            }
        }
        Ok(())
    }

    fn covers_all(&self) -> bool {
        self.coverage.from == Position::START
    }

    /// Checks the invariants of the whole database. Returns all invariants in their order.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails.
    pub async fn finish(mut self) -> Result<Vec<Checked>> {
        let covers_all = self.covers_all();
        self.look_up_doubtful_keys().await?;
        let conn = first(self.conns)?;
        let facts = if covers_all {
            let counted = fsck::counted(conn).await?;
            std::mem::take(&mut self.gathered).facts(counted)
        } else {
            WholeFacts::default()
        };
        let mut checked = Vec::new();
        for (invariant, law, scope) in INVARIANTS {
            let skipped = scope == Scope::AllSlices && !covers_all;
            let violations = match scope {
                Scope::Slice => self.found.remove(invariant).unwrap_or_default(),
                _ if skipped => Violations::default(),
                _ => fsck::check_all(conn, invariant, &facts, self.began).await?,
            };
            checked.push(Checked { invariant, law, violations, skipped });
        }
        Ok(checked)
    }

    /// Ends the check before its end. Returns what was found in the slices so far; invariants of the whole database are
    /// skipped.
    pub fn stop(mut self) -> Vec<Checked> {
        let checked = INVARIANTS.map(|(invariant, law, scope)| {
            let violations = self.found.remove(invariant).unwrap_or_default();
            Checked { invariant, law, violations, skipped: scope != Scope::Slice }
        });
        checked.into()
    }
}

fn first(conns: &mut [Conn]) -> Result<&mut Conn> {
    conns.first_mut().ok_or_else(|| Error::Internal("a check needs a connection".into()))
}

/// What is the same for all parts of a check.
#[derive(Debug, Clone, Copy)]
struct PartScope {
    covers_all: bool,
    marks_to: Tsid,
    evidence_since: DateTime<Utc>,
    began: DateTime<Utc>,
}

/// What one slice has shown.
#[derive(Default)]
struct PartChecked {
    shard: i16,
    found: Vec<(&'static str, Violations)>,
    recounts: Vec<Recount>,
    evidence: Vec<LaneEvidence>,
    /// With 1 for marks of messages, -1 for those of keys.
    marks: (Vec<KeyMark>, i64),
}

async fn check_part(conn: &mut Conn, part: &Part, scope: PartScope) -> Result<PartChecked> {
    match part {
        Part::Keys(slice) => {
            let marks = fsck::key_marks(conn, slice, scope.marks_to).await?;
            let range = Slice::since(slice.shard, scope.marks_to);
            let found = vec![("keys", fsck::check_keys(conn, slice, range).await?)];
            Ok(PartChecked { shard: slice.shard, found, marks: (marks, -1), ..PartChecked::default() })
        }
        Part::Messages(slice) => {
            let slice = *slice;
            // Keys of older messages are compared by marks, with those that the walk over all keys finds.
            let looked_up = if scope.covers_all { slice.from.max(scope.marks_to) } else { slice.from };
            let found = check_messages(conn, slice, looked_up, scope.began).await?;
            let recounts = fsck::recount(conn, slice).await?;
            let mut checked = PartChecked { shard: slice.shard, found, recounts, ..PartChecked::default() };
            if scope.covers_all {
                checked.evidence = fsck::evidence(conn, slice, scope.evidence_since).await?;
                let marked = Slice { to: slice.to.min(scope.marks_to), ..slice };
                checked.marks = (fsck::message_marks(conn, marked).await?, 1);
            }
            Ok(checked)
        }
    }
}

/// The stretch of ids to which a message belongs.
fn stretch(message_id: Tsid) -> i64 {
    message_id.0 >> limits::FSCK_STRETCH_BITS
}

/// Checks all invariants of slices on one slice. Keys are looked up of messages from `looked_up` on.
async fn check_messages(
    conn: &mut Conn,
    slice: Slice,
    looked_up: Tsid,
    now: DateTime<Utc>,
) -> Result<Vec<(&'static str, Violations)>> {
    let mut found = Vec::new();
    for (invariant, _, scope) in INVARIANTS {
        let slice = if invariant == "keys" { Slice { from: looked_up, ..slice } } else { slice };
        if scope == Scope::Slice && slice.from < slice.to {
            found.push((invariant, fsck::check_slice(conn, invariant, slice, now).await?));
        }
    }
    Ok(found)
}

/// What the slices have shown about the whole database. Its size grows with partners, days, lanes and providers.
#[derive(Default)]
struct Gathered {
    claimed: BTreeMap<(i16, Lane), DateTime<Utc>>,
    called: BTreeSet<&'static str>,
    serves: BTreeSet<(&'static str, String)>,
    stats: BTreeMap<(Tsid, NaiveDate, &'static str), CountTotals>,
    /// Of each shard and stretch: messages with keys less keys, and the marks of both, combined. Zero where they agree.
    marks: BTreeMap<(i16, i64), (i64, i64)>,
}

impl Gathered {
    fn add(&mut self, shard: i16, evidence: Vec<LaneEvidence>, recounts: Vec<Recount>, called_since: DateTime<Utc>) {
        for LaneEvidence { lane, ready_at, called_at } in evidence {
            if let Some(ready_at) = ready_at {
                let latest = self.claimed.entry((shard, lane)).or_insert(ready_at);
                *latest = ready_at.max(*latest);
            }
            if called_at.is_some_and(|at| at >= called_since) {
                self.called.insert(lane.channel().as_str());
            }
        }
        for Recount { partner_id, date, lane, provider, sums, .. } in recounts {
            let channel = lane.channel().as_str();
            if let Some(provider) = provider {
                self.serves.insert((channel, provider));
            }
            if let Some(date) = date {
                let all = self.stats.entry((partner_id, date, channel)).or_default();
                all.total += sums.total;
                all.success += sums.success;
                all.failed += sums.failed;
            }
        }
    }

    /// Adds marks of messages (`sign` 1) or keys (-1).
    fn add_marks(&mut self, shard: i16, marks: Vec<KeyMark>, sign: i64) {
        for KeyMark { stretch, keys, mark } in marks {
            let both = self.marks.entry((shard, stretch)).or_default();
            both.0 += sign * keys;
            both.1 ^= mark;
        }
    }

    fn facts(mut self, counted: Vec<Counted>) -> WholeFacts {
        let mut doubtful = BTreeSet::new();
        for Counted { partner_id, date, message_type, sums } in counted {
            let channel = message_type.parse::<Channel>().ok().filter(|channel| CHANNELS.contains(channel));
            let recounted = channel.and_then(|channel| self.stats.remove(&(partner_id, date, channel.as_str())));
            if recounted.unwrap_or_default() != sums {
                doubtful.insert(partner_id);
            }
        }
        let uncounted = self.stats.into_iter().filter(|(_, sums)| *sums != CountTotals::default());
        doubtful.extend(uncounted.map(|((partner_id, ..), _)| partner_id));
        WholeFacts {
            claimed: self.claimed.into_iter().map(|((shard, lane), ready_at)| (shard, lane, ready_at)).collect(),
            called: self.called.into_iter().map(str::to_owned).collect(),
            serves: self.serves.into_iter().map(|(channel, provider)| (channel.to_owned(), provider)).collect(),
            doubtful: doubtful.into_iter().collect(),
        }
    }
}

/// Checks what is new again and again. Each round covers messages accepted in the last `limits::FSCK_TAIL`, and goes on
/// with a lap over those accepted within the horizon. Messages accepted before the horizon, also those that ended
/// lately, and the invariants that need all slices are not covered.
pub struct Watch {
    horizon: TimeDelta,
    /// The rest of the lap.
    lap: VecDeque<Slice>,
    /// What is broken, as far as is known, and where.
    broken: BTreeMap<FindingKey, Slice>,
}

/// Invariant, message, delivery and text of a finding.
type FindingKey = (&'static str, Tsid, i16, String);

impl Watch {
    /// Watches messages accepted within this time.
    pub fn new(horizon: TimeDelta) -> Watch {
        Watch { horizon, lap: VecDeque::new(), broken: BTreeMap::new() }
    }

    /// Makes one round on a connection of `Store::connect_for_fsck`: `deliveries` of the lap, besides the new messages.
    /// Returns the findings that no earlier round had.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database fails. Findings that the round had so far are returned by the next one.
    pub async fn round(&mut self, conn: &mut Conn, now: DateTime<Utc>, deliveries: u64) -> Result<Vec<Finding>> {
        let shards = fsck::shards(conn).await?;
        let mut found = self.recheck(conn, now).await?;
        let mut slices = slices_since(conn, &shards, now - limits::FSCK_TAIL).await?;
        let lap_slices = usize::try_from(deliveries / limits::FSCK_SLICE.unsigned_abs()).unwrap_or(usize::MAX).max(1);
        if self.lap.is_empty() {
            self.lap = slices_since(conn, &shards, now - self.horizon).await?.into();
        }
        slices.extend(self.lap.iter().take(lap_slices));
        for slice in slices {
            for (_, violations) in check_messages(conn, slice, slice.from, now).await? {
                found.extend(violations.findings.into_iter().map(|finding| (finding, slice.shard)));
            }
        }
        for (invariant, _, scope) in INVARIANTS {
            if scope == Scope::All {
                let violations = fsck::check_all(conn, invariant, &WholeFacts::default(), now).await?;
                found.extend(violations.findings.into_iter().map(|finding| (finding, 0)));
            }
        }
        self.lap.drain(..lap_slices.min(self.lap.len()));
        let mut broken = BTreeMap::new();
        let mut new = Vec::new();
        for (finding, shard) in found {
            let key = (finding.invariant, finding.message_id, finding.no, finding.found.clone());
            let to = Tsid(finding.message_id.0.saturating_add(1));
            let is_new = broken.insert(key.clone(), Slice { shard, from: finding.message_id, to }).is_none();
            if is_new && !self.broken.contains_key(&key) {
                new.push(finding);
            }
        }
        self.broken = broken;
        Ok(new)
    }

    /// Checks again what was broken: a lap may last for hours, and a finding may be over.
    async fn recheck(&self, conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<(Finding, i16)>> {
        let mut still = Vec::new();
        let places: BTreeSet<_> =
            self.broken.iter().map(|(key, slice)| (key.0, slice.shard, slice.from, slice.to)).collect();
        for (invariant, shard, from, to) in places.into_iter().take(limits::FSCK_FINDINGS) {
            if INVARIANTS.iter().any(|(name, _, scope)| *name == invariant && *scope == Scope::Slice) {
                let violations = fsck::check_slice(conn, invariant, Slice { shard, from, to }, now).await?;
                still.extend(violations.findings.into_iter().map(|finding| (finding, shard)));
            }
        }
        Ok(still)
    }

    /// What the last round knew to be broken: each invariant with the number of its findings and one of them.
    pub fn broken(&self) -> BTreeMap<&'static str, (u64, String)> {
        let mut broken: BTreeMap<&'static str, (u64, String)> = BTreeMap::new();
        for (invariant, message_id, no, found) in self.broken.keys() {
            let (rows, _) = broken.entry(invariant).or_insert_with(|| (0, format!("{message_id}-{no} {found}")));
            *rows += 1;
        }
        broken
    }
}

/// Makes a round of a watch, and notes an alert for each invariant that is broken.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn watch_lately(hub: &Hub, watch: &mut Watch) -> Result<()> {
    let mut conn = hub.store.connect_for_fsck().await?;
    let every_s = hub.settings.work.fsck_every_s.unwrap_or(1);
    let deliveries = u64::from(every_s) * u64::from(limits::FSCK_WATCH_RATE);
    for finding in watch.round(&mut conn, hub.clock.now(), deliveries).await? {
        let (message_id, no, found) = (finding.message_id, finding.no, finding.found);
        tracing::error!(invariant = finding.invariant, %message_id, no, found, "an invariant is broken");
    }
    for (invariant, (rows, example)) in watch.broken() {
        let cause = AlertCause::Broken { invariant: invariant.to_owned() };
        hub.causes.note(cause, format!("{rows} findings, one of them {example}"));
    }
    Ok(())
}

/// The slices of messages accepted since then, in the order of ids.
async fn slices_since(conn: &mut Conn, shards: &[i16], since: DateTime<Utc>) -> Result<Vec<Slice>> {
    let mut slices = Vec::new();
    for shard in shards {
        let range = Slice::since(*shard, Tsid::floor(since));
        slices.extend(fsck::slices(conn, range, limits::FSCK_SLICE).await?);
    }
    slices.sort_by_key(|slice| (slice.from, slice.shard));
    Ok(slices)
}

/// Checks the whole database as of `now`, on a connection of its own. Returns up to `limits::FSCK_FINDINGS` findings of
/// each invariant; `progress` is called after each slice.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn fsck(store: &Store, now: DateTime<Utc>, progress: impl FnMut(Step)) -> Result<Vec<Finding>> {
    let checked = check_everything(&mut store.connect_for_fsck().await?, now, progress).await?;
    Ok(checked.into_iter().flat_map(|checked| checked.violations.findings).collect())
}

/// Checks the whole database as of `now`, on a connection of `Store::connect_for_fsck`.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn check_everything(
    conn: &mut Conn,
    now: DateTime<Utc>,
    mut progress: impl FnMut(Step),
) -> Result<Vec<Checked>> {
    let mut check = Check::begin(std::slice::from_mut(conn), Coverage::ALL, now).await?;
    while let Some(step) = check.step().await? {
        progress(step);
    }
    check.finish().await
}
