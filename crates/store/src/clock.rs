//! Where a store's time comes from: the system's clocks, or one that is given, for tests and
//! simulations. That time never runs backwards is the ledger's rule; that it does not stand
//! still when the system's clock is set back is this file's.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use volley_model::{Millis, Timestamp};

/// A clock: what time it is, and how much of it really passes.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Time since some moment, by a clock that nobody sets; `None`: the wall clock is never set either.
    passed: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
}

impl Clock {
    /// The system's wall clock, and its monotonic one.
    #[must_use]
    pub fn system() -> Self {
        let begin = Instant::now();
        let wall = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(since.as_millis() as u64)
        };
        Self::given_two(wall, move || begin.elapsed())
    }

    /// Whatever `now` says.
    #[must_use]
    pub fn given(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(now), passed: None }
    }

    /// A wall clock that can be set, and one that only goes on.
    #[must_use]
    pub fn given_two(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        passed: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self { wall: Arc::new(wall), passed: Some(Arc::new(passed)) }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.wall)()
    }

    fn passed(&self) -> Duration {
        self.passed.as_ref().map_or(Duration::ZERO, |passed| passed())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// The time of one store: its clock's, and where that was set back (in this life or before it), the last known time
/// and what has really passed since. Then leases, retries and terms take as long as they should, and the store is ahead
/// of the wall clock until that has caught up.
#[derive(Debug)]
pub(crate) struct StoreTime {
    clock: Clock,
    /// A known time, and what the other clock said then.
    known: (Timestamp, Duration),
}

impl StoreTime {
    /// Of a store that has seen no time yet.
    pub(crate) fn new(clock: Clock) -> Self {
        let known = (clock.now(), clock.passed());
        Self { clock, known }
    }

    /// The store has seen this time: what follows is not before it.
    pub(crate) fn not_before(&mut self, seen: Timestamp) {
        if seen > self.now() {
            self.known = (seen, self.clock.passed());
        }
    }

    /// The time.
    pub(crate) fn now(&mut self) -> Timestamp {
        let (wall, passed) = (self.clock.now(), self.clock.passed());
        let since = passed.saturating_sub(self.known.1);
        let least = self.known.0.after(Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        // The wall clock also counts what a sleeping machine does not: it leads where it can.
        if wall > least {
            self.known = (wall, passed);
        }
        wall.max(least)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A wall clock and a monotonic one, in milliseconds, that a test sets.
    #[derive(Clone, Default)]
    struct Set(Arc<Mutex<(u64, u64)>>);

    impl Set {
        fn clock(&self) -> Clock {
            let (wall, passed) = (self.clone(), self.clone());
            Clock::given_two(
                move || Timestamp(wall.0.lock().unwrap().0),
                move || Duration::from_millis(passed.0.lock().unwrap().1),
            )
        }

        fn pass(&self, wall: i64, real: u64) {
            let mut set = self.0.lock().unwrap();
            set.0 = set.0.saturating_add_signed(wall);
            set.1 += real;
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_back_stops_no_time() {
        let set = Set::default();
        set.pass(10_000_000, 7);
        let mut time = StoreTime::new(set.clock());
        assert_eq!(time.now(), Timestamp(10_000_000));
        set.pass(500, 500);
        assert_eq!(time.now(), Timestamp(10_000_500));
        set.pass(-3_600_000, 0);
        assert_eq!(time.now(), Timestamp(10_000_500), "not backwards");
        for step in 1..=10 {
            set.pass(250, 250);
            assert_eq!(time.now(), Timestamp(10_000_500 + 250 * step), "and not still");
        }
        // Set right again, and later ahead: it leads.
        set.pass(3_600_000, 0);
        assert_eq!(time.now(), Timestamp(10_003_000));
        set.pass(60_000, 0);
        assert_eq!(time.now(), Timestamp(10_063_000));
    }

    #[test]
    fn a_store_of_a_later_time_goes_on_from_there() {
        let set = Set::default();
        set.pass(1_000, 0);
        let mut time = StoreTime::new(set.clock());
        time.not_before(Timestamp(900));
        assert_eq!(time.now(), Timestamp(1_000));
        time.not_before(Timestamp(50_000));
        set.pass(30, 30);
        assert_eq!(time.now(), Timestamp(50_030));
    }

    #[test]
    fn a_given_clock_is_all_there_is() {
        let now = Arc::new(Mutex::new(5));
        let given = Arc::clone(&now);
        let mut time = StoreTime::new(Clock::given(move || Timestamp(*given.lock().unwrap())));
        *now.lock().unwrap() = 9;
        assert_eq!(time.now(), Timestamp(9));
        *now.lock().unwrap() = 3;
        assert_eq!(time.now(), Timestamp(9));
    }
}
