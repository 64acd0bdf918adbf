//! What lies in the store and what may go: images with their layers, downloads that broke off,
//! and the bound of it all. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use volley_model::Bytes;

use super::ImageConfig;

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) reference: String,
    pub(super) digest: String,
    pub(super) config: ImageConfig,
    /// Lowest first.
    pub(super) layers: Vec<LayerRecord>,
    /// The machine's life in which it was made, until all of it is known to be on the disk: after a power failure only
    /// what is on the disk is whole.
    pub(super) unsynced_in: Option<String>,
}

/// A layer that is there: its folder's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub(super) name: String,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Image {
    record: Arc<ImageRecord>,
    /// Containers that use it.
    holds: u32,
    used_at: SystemTime,
}

#[derive(Debug, Default)]
struct Layer {
    bytes: u64,
    /// Images that have it.
    images: u32,
    /// Pulls that count on it.
    pins: u32,
}

/// What has to go from the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goner {
    /// A record, and the folders of the layers that nobody else has.
    Image { reference: String, layers: Vec<String> },
    /// A file.
    Part(String),
}

/// The name of an image whose reference has come to mean another one.
pub(super) fn aside(reference: &str, digest: &str) -> String {
    format!("{reference}@{digest}")
}

/// The book of the store.
#[derive(Debug)]
pub(super) struct Space {
    max: Bytes,
    used: u64,
    images: BTreeMap<String, Image>,
    layers: BTreeMap<String, Layer>,
    /// Downloads that broke off, by file name, and their bytes.
    parts: BTreeMap<String, u64>,
}

impl Space {
    pub(super) fn new(max: Bytes) -> Self {
        Self { max, used: 0, images: BTreeMap::new(), layers: BTreeMap::new(), parts: BTreeMap::new() }
    }

    /// The one used last at the end; those in use are the last.
    pub(super) fn references(&self) -> Vec<String> {
        let mut images: Vec<_> = self.images.iter().collect();
        images.sort_by_key(|(_, image)| (image.holds > 0, image.used_at));
        images.into_iter().map(|(reference, _)| reference.clone()).collect()
    }

    pub(super) fn has(&self, reference: &str, digest: &str) -> bool {
        self.images.get(reference).is_some_and(|image| image.record.digest == digest)
    }

    pub(super) fn used(&self) -> Bytes {
        Bytes(self.used)
    }

    /// Takes room. What has to go first is given; false when there is not enough even so.
    pub(super) fn take(&mut self, bytes: u64, goners: &mut Vec<Goner>) -> bool {
        while self.used.saturating_add(bytes) > self.max.0 {
            match self.evict() {
                Some(goner) => goners.push(goner),
                None => return false,
            }
        }
        self.used += bytes;
        true
    }

    pub(super) fn give_back(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// What broke off goes first, then the image that was not used for the longest time.
    fn evict(&mut self) -> Option<Goner> {
        if let Some((name, bytes)) = self.parts.pop_first() {
            self.give_back(bytes);
            return Some(Goner::Part(name));
        }
        let idle = self.images.iter().filter(|(_, image)| image.holds == 0);
        let reference = idle.min_by_key(|(_, image)| image.used_at)?.0.clone();
        let image = self.images.remove(&reference)?;
        let mut layers = Vec::new();
        for layer in &image.record.layers {
            let Some(kept) = self.layers.get_mut(&layer.name) else { continue };
            kept.images -= 1;
            if kept.images == 0 && kept.pins == 0 {
                let bytes = kept.bytes;
                self.give_back(bytes);
                self.layers.remove(&layer.name);
                layers.push(layer.name.clone());
            }
        }
        Some(Goner::Image { reference, layers })
    }

    /// A file of an earlier try; its room is taken now.
    pub(super) fn add_part(&mut self, name: String, bytes: u64) {
        self.used += bytes;
        self.parts.insert(name, bytes);
    }

    /// A download goes on with a file: it is not in the way of others any more. Gives its bytes, still taken.
    pub(super) fn resume_part(&mut self, name: &str) -> u64 {
        self.parts.remove(name).unwrap_or(0)
    }

    /// A layer that a pull counts on: `None` when it is not there.
    pub(super) fn pin(&mut self, name: &str) -> Option<u64> {
        let layer = self.layers.get_mut(name)?;
        layer.pins += 1;
        Some(layer.bytes)
    }

    /// A layer came, its room already taken, pinned.
    pub(super) fn add_pinned(&mut self, name: &str, bytes: u64) {
        self.layers.insert(name.to_owned(), Layer { bytes, images: 0, pins: 1 });
    }

    /// A pull is over. Gives the layers that nobody has.
    pub(super) fn unpin(&mut self, names: &[String]) -> Vec<String> {
        let mut gone = Vec::new();
        for name in names {
            let Some(layer) = self.layers.get_mut(name) else { continue };
            layer.pins -= 1;
            if layer.pins == 0 && layer.images == 0 {
                let bytes = layer.bytes;
                self.give_back(bytes);
                self.layers.remove(name);
                gone.push(name.clone());
            }
        }
        gone
    }

    /// An image is there. With `new_layers` the room of those not known is taken (at a start).
    pub(super) fn add_image(&mut self, record: ImageRecord, used_at: SystemTime) {
        for layer in &record.layers {
            if !self.layers.contains_key(&layer.name) {
                self.used += layer.bytes;
            }
            let kept = self.layers.entry(layer.name.clone()).or_default();
            kept.bytes = layer.bytes;
            kept.images += 1;
        }
        let image = Image { record: Arc::new(record), holds: 0, used_at };
        self.images.insert(image.record.reference.clone(), image);
    }

    /// A reference comes to mean another image: the one that it meant until now goes on by its digest, for those who use
    /// it. Gives its record.
    pub(super) fn set_aside(&mut self, reference: &str) -> Option<ImageRecord> {
        let mut image = self.images.remove(reference)?;
        let name = aside(reference, &image.record.digest);
        let record = ImageRecord { reference: name.clone(), ..(*image.record).clone() };
        image.record = Arc::new(record.clone());
        if let Some(before) = self.images.insert(name.clone(), image) {
            // The tag has come and gone before: two of the same are one.
            if let Some(now) = self.images.get_mut(&name) {
                now.holds += before.holds;
            }
            for layer in &before.record.layers {
                if let Some(kept) = self.layers.get_mut(&layer.name) {
                    kept.images -= 1;
                }
            }
        }
        Some(record)
    }

    /// A container uses an image, if it is there.
    pub(super) fn hold(&mut self, reference: &str) -> Option<Arc<ImageRecord>> {
        let image = self.images.get_mut(reference)?;
        image.holds += 1;
        Some(Arc::clone(&image.record))
    }

    /// It does not any more.
    pub(super) fn release(&mut self, record: &ImageRecord, now: SystemTime) {
        let set_aside = aside(&record.reference, &record.digest);
        // Those who held it when it was set aside are counted there.
        let is_aside = self.images.get(&set_aside).is_some_and(|image| image.holds > 0);
        let reference = if is_aside { &set_aside } else { &record.reference };
        if let Some(image) = self.images.get_mut(reference) {
            image.holds = image.holds.saturating_sub(1);
            image.used_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(reference: &str, layers: &[(&str, u64)]) -> ImageRecord {
        let layers =
            layers.iter().map(|(name, bytes)| LayerRecord { name: (*name).to_owned(), bytes: *bytes }).collect();
        ImageRecord {
            reference: reference.to_owned(),
            digest: String::new(),
            config: ImageConfig::default(),
            layers,
            unsynced_in: None,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_image_not_used_for_longest_goes_but_never_one_in_use() {
        let mut space = Space::new(Bytes(100));
        space.add_image(record("old", &[("base", 30), ("a", 20)]), at(1));
        space.add_image(record("new", &[("base", 30), ("b", 20)]), at(2));
        assert_eq!(space.used(), Bytes(70));
        assert!(space.hold("old").is_some());
        let mut goners = Vec::new();
        assert!(space.take(40, &mut goners));
        let gone = Goner::Image { reference: "new".to_owned(), layers: vec!["b".to_owned()] };
        assert_eq!(goners, [gone], "the shared layer stays");
        assert!(!space.take(20, &mut goners), "what is left is in use");
        space.release(&record("old", &[]), at(3));
        assert!(space.take(20, &mut goners));
        assert_eq!((space.used(), space.references().len()), (Bytes(60), 0));
    }

    #[test]
    fn an_image_whose_tag_has_moved_stays_while_it_is_used_and_then_may_go() {
        let mut space = Space::new(Bytes(100));
        let of = |digest: &str, layers| ImageRecord { digest: digest.to_owned(), ..record("app:1", layers) };
        space.add_image(of("a", &[("base", 30), ("a", 20)]), at(1));
        let held = space.hold("app:1").unwrap();
        assert_eq!(space.set_aside("app:1").unwrap().reference, "app:1@a");
        space.add_image(of("b", &[("base", 30), ("b", 20)]), at(2));
        assert!(space.has("app:1", "b") && space.has("app:1@a", "a"));
        let mut goners = Vec::new();
        assert!(space.take(40, &mut goners) && !space.take(20, &mut goners));
        assert_eq!(goners, [Goner::Image { reference: "app:1".to_owned(), layers: vec!["b".to_owned()] }]);
        space.release(&held, at(3));
        assert!(space.take(20, &mut goners));
        assert_eq!((space.used(), space.references().len()), (Bytes(60), 0));
    }

    #[test]
    fn a_tag_that_moves_there_and_back_counts_its_layers_once() {
        let mut space = Space::new(Bytes(100));
        let of = |digest: &str| ImageRecord { digest: digest.to_owned(), ..record("app:1", &[("layer", 50)]) };
        for digest in ["a", "b", "a", "b"] {
            drop(space.set_aside("app:1"));
            space.add_image(of(digest), at(1));
        }
        assert_eq!((space.used(), space.references().len()), (Bytes(50), 3));
        assert!(space.take(100, &mut Vec::new()), "all of them may go");
        assert_eq!(space.references().len(), 0);
    }

    #[test]
    fn layers_that_a_pull_counts_on_stay_and_go_with_it() {
        let mut space = Space::new(Bytes(100));
        space.add_image(record("one", &[("base", 60)]), at(1));
        assert_eq!(space.pin("base"), Some(60));
        let mut goners = Vec::new();
        assert!(!space.take(50, &mut goners));
        assert_eq!(goners, [Goner::Image { reference: "one".to_owned(), layers: Vec::new() }]);
        assert_eq!(space.unpin(&["base".to_owned()]), ["base"]);
        assert_eq!(space.used(), Bytes(0));
    }

    #[test]
    fn what_broke_off_goes_first() {
        let mut space = Space::new(Bytes(100));
        space.add_part("x.part".to_owned(), 50);
        space.add_part("y.part".to_owned(), 10);
        assert_eq!(space.resume_part("y.part"), 10);
        let mut goners = Vec::new();
        assert!(space.take(60, &mut goners));
        assert_eq!(goners, [Goner::Part("x.part".to_owned())]);
    }
}
