//! How far a pull is: counted where bytes come, told in words. Knows nothing of who asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of one pull.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Of the layers that are fetched, as they are packed; 0 until the image is found.
    total: AtomicU64,
    /// Of them here.
    fetched: AtomicU64,
}

/// A layer that is being fetched: what it brought counts until it breaks off.
pub(super) struct Fetching<'a> {
    progress: &'a Progress,
    counted: u64,
    whole: bool,
}

impl Progress {
    /// A layer is to come.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One try to fetch a layer.
    pub(super) fn fetching(&self) -> Fetching<'_> {
        Fetching { progress: self, counted: 0, whole: false }
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        let (fetched, total) = (self.fetched.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        match total {
            0 => "looking its image up".to_owned(),
            _ if fetched < total => format!("pulling {} of {} MiB", fetched >> 20, mib(total)),
            _ => "unpacking its image".to_owned(),
        }
    }
}

impl Fetching<'_> {
    /// Bytes came, or were there already.
    pub(super) fn add(&mut self, bytes: u64) {
        self.counted += bytes;
        self.progress.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of it is here.
    pub(super) fn done(mut self) {
        self.whole = true;
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.progress.fetched.fetch_sub(self.counted, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_off_does_not_count() {
        let progress = Progress::default();
        assert_eq!(progress.words(), "looking its image up");
        progress.expect(40 << 20);
        let mut fetching = progress.fetching();
        fetching.add(12 << 20);
        assert_eq!(progress.words(), "pulling 12 of 40 MiB");
        drop(fetching);
        assert_eq!(progress.words(), "pulling 0 of 40 MiB");
        let mut fetching = progress.fetching();
        fetching.add(40 << 20);
        fetching.done();
        assert_eq!(progress.words(), "unpacking its image");
    }
}
