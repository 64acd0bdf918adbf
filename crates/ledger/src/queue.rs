//! The queues: one per shape, in one order of score, with an index of heads over all shapes
//! that are not blocked. Range entries stand for containers that were never claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use volley_model::{
    BlockedShape, ContainerId, FleetVersion, GroupId, Score, SessionId, Shape, ShapeHash, Timestamp, WaitReason,
};

/// The place of an entry: score, then index in the group. One group per score and arrival, so it is unique.
pub(crate) type Place = (Score, u32);

/// An entry of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Containers `index..end` of a run; `index` is the entry's place.
    Range { group: GroupId, run: u32, end: u32, since: Timestamp },
    /// A container with a record of its own.
    One { container: ContainerId, since: Timestamp },
}

impl Entry {
    pub(crate) fn since(&self) -> Timestamp {
        match self {
            Entry::Range { since, .. } | Entry::One { since, .. } => *since,
        }
    }

    /// How many of the entry at `place` are in front of a container of it; `None` when it is not of it.
    pub(crate) fn holds(&self, place: Place, id: ContainerId) -> Option<u64> {
        match self {
            Entry::Range { group, end, .. } => {
                let within = *group == id.group && (place.1..*end).contains(&id.index);
                within.then(|| u64::from(id.index - place.1))
            }
            Entry::One { container, .. } => (*container == id).then_some(0),
        }
    }

    pub(crate) fn count(&self, index: u32) -> u64 {
        match self {
            Entry::Range { end, .. } => u64::from(end - index),
            Entry::One { .. } => 1,
        }
    }
}

impl ShapeQueue {
    /// Containers of it with a better score than this one.
    pub(crate) fn before(&self, score: Score) -> u64 {
        let ends = |end: Option<(&Place, &Entry)>| end.is_some_and(|(place, _)| place.0 < score);
        match (ends(self.entries.first_key_value()), ends(self.entries.last_key_value())) {
            (false, _) => 0,
            // Of one score is what came together: most queues are wholly in front or wholly behind.
            (true, true) => self.waiting,
            (true, false) => self.entries.range(..(score, 0)).map(|(place, entry)| entry.count(place.1)).sum(),
        }
    }
}

/// A mark that nothing of the shape fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    /// Planned against.
    pub(crate) at: FleetVersion,
    pub(crate) reasons: Arc<Vec<WaitReason>>,
    /// What the feed says: count and best score.
    pub(crate) told: (u64, Option<Score>),
    /// Under which version it stands in the recheck index: the mark's, or the growth it was handed out for.
    pub(crate) looked_at: FleetVersion,
    pub(crate) handed_to: Option<SessionId>,
}

/// A shape's queue.
#[derive(Debug, Clone)]
pub(crate) struct ShapeQueue {
    pub(crate) shape: Arc<Shape>,
    pub(crate) entries: BTreeMap<Place, Entry>,
    /// Containers in `entries`.
    pub(crate) waiting: u64,
    pub(crate) mark: Option<Mark>,
    /// Containers of this shape in servers' turns.
    pub(crate) claimed: u64,
    /// Live containers and unfinished ranges that have this shape.
    pub(crate) users: u64,
}

impl ShapeQueue {
    pub(crate) fn head(&self) -> Option<Place> {
        self.entries.keys().next().copied()
    }

    pub(crate) fn blocked_view(&self, hash: ShapeHash) -> Option<BlockedShape> {
        let mark = self.mark.as_ref()?;
        let (place, entry) = self.entries.first_key_value()?;
        Some(BlockedShape {
            hash,
            shape: Arc::clone(&self.shape),
            count: mark.told.0,
            best: place.0,
            since: entry.since(),
            at: mark.at,
        })
    }
}

/// All queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queues {
    pub(crate) shapes: BTreeMap<ShapeHash, ShapeQueue>,
    /// Heads of shapes that are not blocked.
    heads: BTreeSet<(Place, ShapeHash)>,
    /// Blocked shapes by the version they were last looked at.
    recheck: BTreeSet<(FleetVersion, ShapeHash)>,
    /// Containers in entries of shapes that are not blocked.
    ready: u64,
    /// Containers in entries of all shapes.
    waiting: u64,
}

impl Queues {
    pub(crate) fn ready(&self) -> u64 {
        self.ready
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Makes the shape known and counts one more user of it.
    pub(crate) fn add_user(&mut self, hash: ShapeHash, shape: impl FnOnce() -> Arc<Shape>, users: u64) {
        let queue = self.shapes.entry(hash).or_insert_with(|| ShapeQueue {
            shape: shape(),
            entries: BTreeMap::new(),
            waiting: 0,
            mark: None,
            claimed: 0,
            users: 0,
        });
        queue.users += users;
    }

    /// One user less; an unused shape is forgotten. Returns true when it was blocked and is gone now.
    pub(crate) fn remove_users(&mut self, hash: ShapeHash, users: u64) -> bool {
        let queue = self.shapes.get_mut(&hash).expect("law 9: a shape in use is known");
        queue.users -= users;
        if queue.users > 0 {
            return false;
        }
        assert!(queue.entries.is_empty(), "law 3: an unused shape has an empty queue");
        let mark = queue.mark.take();
        if let Some(mark) = &mark {
            self.recheck.remove(&(mark.looked_at, hash));
        }
        self.shapes.remove(&hash);
        mark.is_some()
    }

    /// Containers of a shape were claimed, or claims on them ended.
    pub(crate) fn claimed(&mut self, hash: ShapeHash, by: i64) {
        let queue = self.shapes.get_mut(&hash).expect("law 3: a claimed container's shape is known");
        queue.claimed = queue.claimed.checked_add_signed(by).expect("law 3: a claim ends once");
    }

    /// Adds an entry. Returns whether its shape is ready (not blocked).
    pub(crate) fn push(&mut self, hash: ShapeHash, place: Place, entry: Entry) -> bool {
        let queue = self.shapes.get_mut(&hash).expect("law 3: a queued container's shape is known");
        let count = entry.count(place.1);
        let old_head = queue.head();
        let before = queue.entries.insert(place, entry);
        assert!(before.is_none(), "law 3: a place in a queue is taken once");
        queue.waiting += count;
        self.waiting += count;
        let ready = queue.mark.is_none();
        if ready {
            self.ready += count;
            self.move_head(hash, old_head);
        }
        ready
    }

    /// Takes an entry out by its place.
    pub(crate) fn take(&mut self, hash: ShapeHash, place: Place) -> Option<Entry> {
        let queue = self.shapes.get_mut(&hash)?;
        let old_head = queue.head();
        let entry = queue.entries.remove(&place)?;
        let count = entry.count(place.1);
        queue.waiting -= count;
        self.waiting -= count;
        if queue.mark.is_none() {
            self.ready -= count;
            self.move_head(hash, old_head);
        }
        Some(entry)
    }

    /// The best entry over all ready shapes, and the place of the next one.
    pub(crate) fn best(&self) -> Option<(ShapeHash, Place, Option<Place>)> {
        let mut heads = self.heads.iter();
        let (place, hash) = heads.next()?;
        let next_shape = heads.next().map(|(place, _)| *place);
        Some((*hash, *place, next_shape))
    }

    fn move_head(&mut self, hash: ShapeHash, old: Option<Place>) {
        let new = self.shapes.get(&hash).and_then(ShapeQueue::head);
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.heads.remove(&(old, hash));
        }
        if let Some(new) = new {
            self.heads.insert((new, hash));
        }
    }

    /// Marks a shape blocked, or renews its mark. False when it is unknown, nothing of it waits, or its mark is of
    /// a newer version: another server has looked later.
    pub(crate) fn block(&mut self, hash: ShapeHash, at: FleetVersion, reasons: Vec<WaitReason>) -> bool {
        let Some(queue) = self.shapes.get_mut(&hash).filter(|q| !q.entries.is_empty()) else { return false };
        if queue.mark.as_ref().is_some_and(|mark| mark.at > at) {
            return false;
        }
        let told = (queue.waiting, queue.head().map(|(score, _)| score));
        let new = Mark { at, reasons: Arc::new(reasons), told, looked_at: at, handed_to: None };
        match queue.mark.replace(new) {
            Some(old) => {
                self.recheck.remove(&(old.looked_at, hash));
            }
            None => {
                self.ready -= queue.waiting;
                if let Some(head) = queue.head() {
                    self.heads.remove(&(head, hash));
                }
            }
        }
        self.recheck.insert((at, hash));
        true
    }

    /// Removes a mark. Returns how many containers became ready; `None` when it was not blocked.
    pub(crate) fn unblock(&mut self, hash: ShapeHash) -> Option<u64> {
        let queue = self.shapes.get_mut(&hash)?;
        let mark = queue.mark.take()?;
        self.recheck.remove(&(mark.looked_at, hash));
        self.ready += queue.waiting;
        if let Some(head) = queue.head() {
            self.heads.insert((head, hash));
        }
        Some(queue.waiting)
    }

    /// Hands out blocked shapes that nobody looked at since `growth`.
    pub(crate) fn hand_out(&mut self, growth: FleetVersion, to: SessionId, max: usize) -> Vec<ShapeHash> {
        let stale: Vec<_> = self.recheck.range(..(growth, ShapeHash(0))).take(max).copied().collect();
        for (version, hash) in &stale {
            self.recheck.remove(&(*version, *hash));
            self.recheck.insert((growth, *hash));
            let queue = self.shapes.get_mut(hash).expect("law 11: a blocked shape is known");
            let mark = queue.mark.as_mut().expect("law 11: a shape in the recheck index is blocked");
            mark.looked_at = growth;
            mark.handed_to = Some(to);
        }
        stale.into_iter().map(|(_, hash)| hash).collect()
    }

    /// Whether a blocked shape was last looked at before `growth`.
    pub(crate) fn any_stale(&self, growth: FleetVersion) -> bool {
        self.recheck.first().is_some_and(|(version, _)| *version < growth)
    }

    /// A session ended: what was handed to it is handed out again.
    pub(crate) fn hand_back(&mut self, session: SessionId) {
        for (hash, queue) in &mut self.shapes {
            let Some(mark) = queue.mark.as_mut().filter(|m| m.handed_to == Some(session)) else { continue };
            self.recheck.remove(&(mark.looked_at, *hash));
            mark.looked_at = mark.at;
            mark.handed_to = None;
            self.recheck.insert((mark.at, *hash));
        }
    }

    /// What breaks the queues' own order, in words.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let (mut ready, mut waiting) = (0, 0);
        for (hash, queue) in &self.shapes {
            let count: u64 = queue.entries.iter().map(|(place, entry)| entry.count(place.1)).sum();
            if count != queue.waiting {
                found.push(format!("law 3: shape {hash} counts {} waiting, its entries {count}", queue.waiting));
            }
            waiting += count;
            let in_heads = queue.head().is_some_and(|head| self.heads.contains(&(head, *hash)));
            match &queue.mark {
                None => {
                    ready += count;
                    if in_heads == queue.entries.is_empty() {
                        found.push(format!("law 11: ready shape {hash} and the head index disagree"));
                    }
                }
                Some(mark) => {
                    if in_heads || !self.recheck.contains(&(mark.looked_at, *hash)) {
                        found.push(format!("law 11: blocked shape {hash} is not where it can be looked at again"));
                    }
                }
            }
        }
        let blocked = self.shapes.values().filter(|q| q.mark.is_some()).count();
        let heads = self.shapes.values().filter(|q| q.mark.is_none() && !q.entries.is_empty()).count();
        if self.heads.len() != heads || self.recheck.len() != blocked {
            found.push("law 11: an index of the queues holds a shape that is not there".to_owned());
        }
        if (ready, waiting) != (self.ready, self.waiting) {
            found.push(format!(
                "law 3: {ready} ready and {waiting} waiting, counted {} and {}",
                self.ready, self.waiting
            ));
        }
        found
    }
}
