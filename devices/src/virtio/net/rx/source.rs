//! The bytes of a frame from some point on, as the guest is to get them.

use crate::virtio::{net::offload::hidden::Patch, queue::Writer};

/// A frame's bytes from some point on.
#[derive(Debug, Clone)]
pub(super) struct Source<'a> {
    frame: &'a [&'a [u8]],
    /// Bytes of the first fragment that were passed.
    offset: usize,
    /// The same of the whole frame.
    position: usize,
    /// Two bytes that are others than in the frame: where, and what.
    patch: Option<(usize, [u8; 2])>,
    /// The same further behind.
    next_patch: Option<(usize, [u8; 2])>,
}

impl<'a> Source<'a> {
    pub(super) fn new(frame: &'a [&'a [u8]]) -> Self {
        Self {
            frame,
            offset: 0,
            position: 0,
            patch: None,
            next_patch: None,
        }
    }

    /// With these changes of the frame, the lower offset first; they do not overlap.
    pub(super) fn with(mut self, patches: [Option<Patch>; 2]) -> Self {
        let [patch, next] =
            patches.map(|patch| patch.map(|(at, number)| (at, number.to_be_bytes())));
        (self.patch, self.next_patch) = (patch, next);
        self
    }

    /// Passes over what is before this offset of the frame.
    pub(super) fn skip(&mut self, mut count: usize) {
        while let [fragment, ..] = self.frame {
            let step = count.min(fragment.len() - self.offset);
            self.advance(step);
            count -= step;
            if count == 0 {
                return;
            }
        }
    }

    /// Copies as much as fits; returns how much.
    pub(super) fn copy(&mut self, writer: &mut Writer<'_>) -> usize {
        let mut done = 0;
        while !self.frame.is_empty() {
            let bytes = self.next();
            let len = bytes.len();
            let copied = writer.write(bytes);
            self.advance(copied);
            done += copied;
            if copied < len {
                break;
            }
        }
        done
    }

    /// The next bytes that lie together. May be none, if a fragment is empty.
    fn next(&self) -> &[u8] {
        let fragment = self.frame.first().copied().unwrap_or_default();
        let bytes = fragment.get(self.offset..).unwrap_or_default();
        match &self.patch {
            Some((at, _)) if self.position < *at => {
                bytes.get(..at - self.position).unwrap_or(bytes)
            }
            Some((at, patch)) if self.position < at + patch.len() => {
                let patch = patch.get(self.position - at..).unwrap_or_default();
                patch.get(..bytes.len()).unwrap_or(patch)
            }
            _ => bytes,
        }
    }

    /// Passes over bytes of the first fragment, and over its end.
    fn advance(&mut self, count: usize) {
        self.offset += count;
        self.position += count;
        if let Some((at, bytes)) = self.patch
            && self.position >= at + bytes.len()
        {
            self.patch = self.next_patch.take();
        }
        if let [fragment, rest @ ..] = self.frame
            && self.offset >= fragment.len()
        {
            self.frame = rest;
            self.offset = 0;
        }
    }
}
